-- Where data go, and how long they are kept.

default_storage = "memory"
