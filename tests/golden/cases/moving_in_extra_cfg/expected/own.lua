a link to {config}/own.lua
