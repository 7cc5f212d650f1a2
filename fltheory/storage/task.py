"""Tasks as they come back from a file, whatever their class was."""

from attrs import frozen

from fltheory.numerics.validation import Array
from fltheory.task import ArrayTask, Task


@frozen(eq=False, repr=False)
class StoredTask(ArrayTask):
    """The arrays of a task, with its Gram matrix as it was."""

    stored_gram: Array | None = None

    def gram(self) -> Array:
        return super().gram() if self.stored_gram is None else self.stored_gram

    @classmethod
    def of(cls, task: Task) -> "StoredTask":
        """All that a file keeps of a task."""
        return cls(
            task.inputs,
            task.targets,
            task.labels,
            task.test_inputs,
            task.test_targets,
            stored_gram=task.gram(),
        )
