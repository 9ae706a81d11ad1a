-- Where data go, and how long they are kept.

storage = { roster = "attic" }
