-- Where data go, and how long they are kept.

archive_expires_after = 7776000

muc_log_expires_after = 7776000
