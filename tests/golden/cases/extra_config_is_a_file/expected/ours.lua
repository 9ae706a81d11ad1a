a link to {config}/ours.lua
