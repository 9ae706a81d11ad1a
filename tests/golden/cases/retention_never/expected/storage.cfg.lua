-- Where data go, and how long they are kept.

archive_expires_after = "never"

muc_log_expires_after = "never"
