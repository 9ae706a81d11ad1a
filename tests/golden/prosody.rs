//! A stand-in for Prosody: the files of an installed one that are read, its Lua, and a program that only loads the main file.
//!
//! `tests/golden/modules/VERSION` lists its features and its modules, each with the modules that it needs: `http?` is one
//! that it may need, `http~` one that it can do without.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::golden;

/// The versions of Prosody that are supported.
pub const VERSIONS: [&str; 2] = ["13.0.1", "0.12.3"];

/// Installs the stand-in in a sandbox, in the places that Debian's package uses.
pub fn install(sandbox: &Path, version: &str) {
    let lib = sandbox.join("lib");
    let modules = fs::read_to_string(golden().join("modules").join(version)).unwrap();
    let write = |path: &Path, content: &str| {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    };
    for line in modules.lines() {
        let mut words = line.split(' ');
        let source = match words.next().unwrap() {
            "features:" => {
                let features: String =
                    words.map(|feature| format!("\t\t-- {feature}\n\t\t{feature:?};\n")).collect();
                let source = format!("return {{\n\tavailable = set.new{{\n{features}\t}};\n}};\n");
                write(&lib.join("core/features.lua"), &source);
                continue;
            }
            module => (module, words.map(depends).collect::<String>()),
        };
        write(&lib.join("modules").join(source.0), &source.1);
    }
    fs::write(lib.join("prosody.version"), format!("{version}\n")).unwrap();
    install_program(sandbox);
}

/// Installs the program and its Lua.
pub fn install_program(sandbox: &Path) {
    let lib = sandbox.join("lib");
    let program = sandbox.join("bin/prosody");
    let head = format!(
        "#!/usr/bin/env lua5.4\n\nCFG_SOURCEDIR='{lib}';\nCFG_PLUGINDIR='{lib}/modules/';\n\
         assert(loadfile(os.getenv('PROSODY_CONFIG')))\nprint('serves')\n",
        lib = lib.display()
    );
    fs::write(&program, head).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    std::os::unix::fs::symlink(lua(), sandbox.join("bin/lua5.4")).unwrap();
}

/// The line of a module that needs another one, or can do without it.
fn depends(need: &str) -> String {
    match (need.strip_suffix('?'), need.strip_suffix('~')) {
        (Some(name), _) => format!("function module.add_host(module) module:depends({name:?}); end\n"),
        (_, Some(name)) => format!("function module.add_host(module) module:depends({name:?}, true); end\n"),
        _ => format!("module:depends({need:?});\n"),
    }
}

/// The Lua that runs Prosody on Debian.
fn lua() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found =
        std::env::split_paths(&path).map(|directory| directory.join("lua5.4")).find(|lua| lua.exists());
    found.expect("there is no lua5.4, which these tests need: apt-get install lua5.4")
}
