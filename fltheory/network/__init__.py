"""Networks of finite width, sampled with torch."""
