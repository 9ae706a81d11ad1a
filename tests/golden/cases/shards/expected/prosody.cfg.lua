-- Prosody's configuration, written anew at every start: changes made here are lost.
-- Changes that last are settings (PROSODY_*), or Lua files in conf.d/, vhost.d/ and cmpt.d/ below
-- "{config}". What conf.d/ says wins over everything else.

-- Lets a reload change the running server. It comes first, to see which options modules read.
(Lua or _G).pcall(RunScript, "{run}/live.lua")

Include "{output}/global.cfg.lua"
Include "{output}/modules.cfg.lua"
Include "{output}/storage.cfg.lua"
Include "{output}/vhosts.cfg.lua"
Include "{output}/components.cfg.lua"
