local ok = pcall(require, "no_such_library");
pcall(function () require "no_such_library" end);
