local nothing = require "no.such.library"
