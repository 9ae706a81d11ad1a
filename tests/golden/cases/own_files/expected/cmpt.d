a link to {config}/cmpt.d
