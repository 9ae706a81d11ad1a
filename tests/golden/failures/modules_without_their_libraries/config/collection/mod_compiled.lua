local x, y = require "compiled", require "compiled.part";
