--% requires: mod_bookmarks, no-such-feature
local x = 1;
