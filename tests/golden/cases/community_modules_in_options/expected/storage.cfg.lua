-- Where data go, and how long they are kept.

default_storage = "shelf"

storage = { archive = "attic", roster = "null" }
