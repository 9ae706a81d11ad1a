module:require "nowhere"
