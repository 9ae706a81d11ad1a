//! The script that compiles modules once for all hosts (`src/live/share.lua`), with Lua and a loader like Prosody's.
#![allow(clippy::unwrap_used)]

use std::process::Command;

/// What the script uses of Prosody. Files are in memory. `loaded` counts how often one was read.
const PROSODY: &str = r#"
files, loaded, options, started, messages = {}, 0, { share_module_code = true }, nil, {}
sections = { ["*"] = options }
local clock = 1000
os.time = function() return clock end
function write(path, content, age)
  local before = files[path]
  files[path] = { content = content, dev = 1, ino = before and before.ino or 1, size = #content, modification = clock - (age or 10),
    change = clock - (age or 10) }
end
function wait(seconds) clock = clock + seconds end

local plugin_dir = { "/own/", "/prosody/" }
local methods = {}
function methods:load_file(names)
  for i = 1, #plugin_dir do
    for j = 1, #names do
      local path = plugin_dir[i] .. names[j]
      if files[path] and not files[path].content:match("^%-%- refused") then
        loaded = loaded + 1
        return files[path].content, path, { name = names[j] }
      end
    end
  end
  return nil, "no file"
end
function methods:load_resource(plugin, resource)
  resource = resource or "mod_" .. plugin .. ".lua"
  return self:load_file({ "mod_" .. plugin .. "/" .. resource, resource })
end
function methods:load_code(plugin, resource, env)
  local content, path, metadata = self:load_resource(plugin, resource)
  if not content then return content, path end
  local f, err = load(content, "@" .. path, nil, env)
  if not f then return f, err end
  return f, path, metadata
end
function methods:load_code_ext(plugin, resource, extension, env)
  local content, path, metadata = self:load_resource(plugin, resource .. "." .. extension)
  if not content then content, path, metadata = self:load_resource(resource, resource .. "." .. extension) end
  if not content then return content, path end
  local f, err = load(content, "@" .. path, nil, env)
  if not f then return f, err end
  return f, path, metadata
end
loader = setmetatable({ _options = {} }, { __index = methods })

prosody = { events = { add_handler = function(event, f) assert(event == "server-started"); started = f end } }
package.preload["core.configmanager"] = function()
  return { get = function(host, name) return sections[host][name] end, getconfig = function() return sections end }
end
package.preload["core.modulemanager"] = function() return { loader = loader } end
package.preload["util.logger"] = function()
  return { init = function() return function(level, ...) messages[#messages + 1] = level .. " " .. string.format(...) end end }
end
package.preload["lfs"] = function() return { attributes = function(path) return files[path] end } end

-- The code of a module for a new environment, which is returned as well.
function load_for(host, name)
  local env = setmetatable({ host = host }, { __index = _G })
  local code, path, metadata = loader:load_code(name, nil, env)
  return code, env, path, metadata
end
-- Whether the code is a part of another function.
function is_shared(code) return debug.getinfo(code, "S").what == "Lua" end
"#;

/// Runs a check after the script, in an interpreter. Returns what it prints.
#[track_caller]
fn run(interpreter: &str, check: &str) -> String {
    let script = include_str!("../src/live/share.lua");
    let text = format!("{PROSODY}\nlocal function share()\n{script}end\n{check}");
    let output = Command::new(interpreter).args(["-e", &text]).output().unwrap_or_else(|error| {
        panic!("{interpreter}: {error}. This test needs it: apt-get install {interpreter}")
    });
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[track_caller]
fn check(lua: &str) {
    run("lua5.4", &format!("share()\n{lua}"));
}

#[test]
fn hosts_have_variables_of_their_own() {
    check(
        r#"
        write("/prosody/mod_a.lua", "local n = 0; count = 0; function add() n = n + 1; count = count + 1; return n, host end return ...")
        local one, one_env, path, metadata = load_for("one", "a")
        local other, other_env, other_path, other_metadata = load_for("other", "a")
        assert(loaded == 1 and is_shared(one) and is_shared(other))
        assert(select('#', one()) == 0 and other(7) == 7)
        assert(one_env.add ~= other_env.add)
        one_env.add()
        assert(one_env.add() == 2 and other_env.add() == 1 and select(2, other_env.add()) == "other")
        assert(one_env.count == 2 and other_env.count == 2 and count == nil)
        assert(path == "/prosody/mod_a.lua" and other_path == path)
        assert(metadata.name == "mod_a.lua" and other_metadata.name == "mod_a.lua" and metadata ~= other_metadata)
        -- A reload looks for syntax errors so, without an environment.
        assert(is_shared(loader:load_code("a")))
        "#,
    );
}

#[test]
fn libraries_are_shared_by_the_module_that_loads_them() {
    check(
        r#"
        write("/prosody/mod_a/lib.lib.lua", "return host .. ' has the lib of a'")
        write("/prosody/lib.lib.lua", "return host .. ' has the lib'")
        local function ask(module, host)
          local code, path = loader:load_code_ext(module, "lib", "lib.lua", { host = host })
          return code(), path, code
        end
        for _, host in ipairs { "one", "other" } do
          local answer, path, code = ask("a", host)
          assert(answer == host .. " has the lib of a" and path == "/prosody/mod_a/lib.lib.lua" and is_shared(code))
          assert(ask("b", host) == host .. " has the lib")
        end
        assert(loaded == 2)
        "#,
    );
}

#[test]
fn errors_have_the_file_and_the_line() {
    check(
        r#"
        write("/prosody/mod_a.lua", "local x = nil\n-- more\nx()")
        write("/prosody/mod_b.lua", "\n\nlocal = 1")
        for _, host in ipairs { "one", "other" } do
          local ok, problem = pcall((load_for(host, "a")))
          assert(problem == "/prosody/mod_a.lua:3: attempt to call a nil value (local 'x')", problem)
          local code, _, reason = load_for(host, "b")
          assert(code == nil and reason:match("^/prosody/mod_b.lua:3: "), reason)
          code, _, reason = load_for(host, "c")
          assert(code == nil and reason == "no file")
        end
        "#,
    );
}

#[test]
fn code_that_cannot_be_shared_is_loaded_by_prosody() {
    check(
        r#"
        -- Would end the function around it.
        write("/prosody/mod_a.lua", "x = 1 end, function () y = 2")
        assert(load_for("one", "a") == nil)
        write("/prosody/mod_b.lua", string.dump(load("return host")))
        -- As deep as the compiler goes.
        local function nested(depth) return "return " .. ("("):rep(depth) .. "host" .. (")"):rep(depth) end
        local depth = 1
        while load(nested(depth + 1)) do depth = depth + 1 end
        write("/prosody/mod_c.lua", nested(depth))
        write("/prosody/mod_d.lua", "return host -- no line break")
        for _, host in ipairs { "one", "other" } do
          for name, shared in pairs { b = false, c = false, d = true } do
            local code = load_for(host, name)
            assert(code() == host and is_shared(code) == shared, name)
          end
        end
        "#,
    );
}

#[test]
fn a_changed_file_is_compiled_anew() {
    check(
        r#"
        local function ask() return (load_for("one", "a"))() end
        write("/prosody/mod_a.lua", "return 1")
        assert(ask() == 1)
        write("/prosody/mod_a.lua", "return 2")
        assert(ask() == 1, "a start takes what it has seen first")
        started()
        wait(20)
        write("/prosody/mod_a.lua", "return 3")
        assert(ask() == 3)
        loaded = 0
        assert(ask() == 3 and loaded == 0)
        -- Of the same size, in the second of its last change.
        wait(20)
        write("/prosody/mod_a.lua", "return 4", 0)
        assert(ask() == 4)
        write("/prosody/mod_a.lua", "return 5", 0)
        assert(ask() == 5)
        wait(20)
        assert(ask() == 5)
        loaded = 0
        assert(ask() == 5 and loaded == 0)
        -- In a directory that is searched before.
        write("/own/mod_a.lua", "return 6")
        assert(ask() == 6)
        files["/own/mod_a.lua"] = nil
        assert(ask() == 5)
        write("/own/mod_a.lua", "-- refused")
        assert(ask() == 5)
        files["/prosody/mod_a.lua"] = nil
        assert(load_for("one", "a") == nil)
        write("/prosody/mod_a.lua", "return")
        assert(ask() == nil)
        "#,
    );
}

#[test]
fn many_virtual_hosts_share_by_themselves() {
    check(
        r#"
        write("/prosody/mod_a.lua", "return host")
        local function configure(setting, hosts, components)
          sections = { ["*"] = { share_module_code = setting }, off = { enabled = false } }
          for i = 1, hosts do sections["host" .. i] = setmetatable({}, { __index = { component_module = "inherited" } }) end
          for i = 1, components do sections["component" .. i] = { component_module = "muc" } end
          return is_shared((load_for("one", "a")))
        end
        assert(configure(nil, 50, 0) and configure("auto", 50, 0))
        assert(#messages == 2 and messages[1] == "debug Modules share their code: 50 virtual hosts", messages[1])
        assert(not configure(nil, 49, 100) and not configure("auto", 49, 0))
        assert(configure(true, 1, 0) and not configure(false, 100, 0))
        "#,
    );
}

#[test]
fn garbage_is_collected_seldom_until_the_start_is_over() {
    // Lua keeps a multiple of 4.
    for (options, during) in [
        ("share_module_code = true", 148),
        ("share_module_code = false", 104),
        ("share_module_code = true, gc = { threshold = 105 }", 104),
    ] {
        run(
            "lua5.4",
            &format!(
                r#"
                sections = {{ ["*"] = {{ {options} }} }}
                collectgarbage("setpause", 104)
                share()
                local pause = collectgarbage("setpause", 104)
                assert(pause == {during}, pause)
                collectgarbage("setpause", pause)
                started()
                assert(collectgarbage("setpause", 0) == 104)
                "#
            ),
        );
    }
}

#[test]
fn a_lua_that_shares_functions_shares_no_modules() {
    for version in ["5.2", "5.3"] {
        let said = run(
            &format!("lua{version}"),
            "print(select(2, pcall(share))); assert(rawget(loader, 'load_code') == nil)",
        );
        assert_eq!(said, format!("Lua {version} shares too much\n"));
    }
}

#[test]
fn another_loader_is_left_alone() {
    for (change, problem) in [
        ("getmetatable(loader).__index.load_code_ext = nil", "Prosody has no function load_code_ext"),
        (
            "getmetatable(loader).__index.load_file = function () end",
            "Prosody has no list of directories with modules",
        ),
    ] {
        let said = run(
            "lua5.4",
            &format!("{change}; print(select(2, pcall(share))); assert(rawget(loader, 'load_code') == nil)"),
        );
        assert_eq!(said, format!("{problem}\n"));
    }
}
