local ok, nothing = pcall(require, "no.such.library")
