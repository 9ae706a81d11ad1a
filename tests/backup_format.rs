//! The JSON and the archives of a backup (`src/data/json.lua`, `src/data/tar.lua`), with Lua alone.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Loads both, and says where errors of archives are raised.
const PARTS: &str = concat!(
    "local function load_json(...)\n",
    include_str!("../src/data/json.lua"),
    "end\nlocal function load_tar(...)\n",
    include_str!("../src/data/tar.lua"),
    "end\n",
    "local encode, decode = load_json()\n",
    "local writer, reader = load_tar(function (status, text, ...) error(status .. ' ' .. text:format(...), 0) end)\n",
);

/// Runs Lua after both, with standard input. Returns what it prints.
#[track_caller]
fn run(lua: &str, input: &[u8]) -> Vec<u8> {
    let mut child = Command::new("lua5.4")
        .args(["-e", &format!("{PARTS}{lua}")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("lua5.4: {error}. This test needs it: apt-get install lua5.4"));
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    // It may end before it has read everything.
    let writing = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().unwrap();
    let _ = writing.join().unwrap();
    assert!(output.status.success(), "{:?}", output.status);
    output.stdout
}

#[test]
fn every_value_of_a_store_comes_back_as_it_was() {
    let lua = r#"
        local function is_same(a, b)
            if type(a) ~= type(b) or math.type(a) ~= math.type(b) then return false end
            if type(a) ~= "table" then return a == b or a ~= a and b ~= b end
            for key in pairs(b) do if a[key] == nil then return false end end
            for key, value in pairs(a) do if not is_same(value, b[key]) then return false end end
            return true
        end
        local all = {}
        for byte = 0, 255 do all[#all + 1] = string.char(byte) end
        local deep = {}
        for _ = 1, 100 do deep = { deep } end
        local values = {
            true, false, "", "text", "\0\1\127\\\"/\n", "\\u0041\\\\u0041\\n\\", "Grüße \u{1f600}", "\xff\xfe", table.concat(all), all,
            0, -1, math.maxinteger, math.mininteger, 1.0, -0.0, 0.1, 1 / 3, 5e-324, 1.7976931348623157e308, 1796096040.1234567,
            1 / 0, -1 / 0, 0 / 0, {}, { {} }, { 1, 2, 3 }, { [0] = 1, 2 }, { nil, 2 }, { [1.5] = "x", [true] = false, [false] = true },
            { name = "body", attr = { xmlns = "a" }, "text", { name = "br", attr = {} } }, { ["$map"] = 1 }, { ["$bytes"] = "00" },
            { ["\xff"] = { ["$number"] = "nan" } }, deep,
        }
        for place, value in ipairs(values) do
            local text = encode(value)
            assert(utf8.len(text) and not text:find("%c"), place .. ": " .. text)
            assert(is_same(value, decode(text)), place .. ": " .. text)
            assert(encode(decode(text)) == text)
        end
        assert(#values == 35)
        assert(encode(-0.0) == "-0.0" and encode(1.0) == "1.0" and encode({ b = 1, a = 2 }) == '{"a":2,"b":1}')
        -- As other programs write it.
        assert(is_same(decode(' { "a" : [ 1 , -2.5e3 , "\\u00e9\\/\\t" ] } '), { a = { 1, -2500.0, "é/\t" } }))
        for _, value in ipairs { print, { [print] = 1 }, { { io.stdout } } } do assert(not pcall(encode, value)) end
        for _ = 1, 100 do deep = { deep } end
        assert(not pcall(encode, deep))
    "#;
    run(lua, b"");
}

#[test]
fn what_is_no_json_is_refused() {
    let lua = r#"
        local bad = {
            "", " ", "{", "}", "[", "[1,]", "[,1]", "[1 2]", "1 2", "--1", "+1", ".5", "1e", "tru", "null", "nan", "'a'", '"a', '"\\', '"\\"',
            '{"a"}', '{"a":}', '{"a":1,}', '{a:1}', '{1:1}', '{"$bytes":1}', '{"$map":1}', '{"$map":[1]}', '"\\u12"', '"\\ud"',
            ("["):rep(100000), ('{"a":'):rep(100000), "return os.exit()",
        }
        for _, text in ipairs(bad) do
            local ok, problem = pcall(decode, text)
            assert(not ok and not tostring(problem):find("overflow"), text:sub(1, 40))
        end
    "#;
    run(lua, b"");
}

/// An archive with names and content of all lengths.
const WRITE: &str = r#"
    local add, finish = writer(io.stdout, 1000000000)
    local function member(name, text)
        local at = 1
        add(name, #text, function (length) at = at + length; return text:sub(at - length, at - 1) end)
    end
    for _, length in ipairs { 1, 99, 100, 101, 255, 1000 } do member(("n"):rep(length), ("x"):rep(length)) end
    for _, size in ipairs { 0, 511, 512, 513, 200000 } do member("size/" .. size, ("y"):rep(size)) end
    finish()
"#;

/// Prints the names and sizes of the archive on standard input, or the error.
const READ: &str = r#"
    local next_member, read = reader(io.stdin)
    local ok, problem = pcall(function ()
        for name, size in next_member do
            local length = 0
            for content in read do length = length + #content end
            assert(length == size)
            print(#name, size)
        end
    end)
    print(ok and "end" or problem)
"#;

/// What it prints for that archive.
const ALL: &str =
    "1\t1\n99\t99\n100\t100\n101\t101\n255\t255\n1000\t1000\n6\t0\n8\t511\n8\t512\n8\t513\n11\t200000\nend\n";

#[test]
fn archives_come_back_and_other_programs_read_them() {
    let archive = run(WRITE, b"");
    assert_eq!(archive.len() % 512, 0);
    assert_eq!(String::from_utf8(run(READ, &archive)).unwrap(), ALL);
    let path = std::env::temp_dir().join(format!("backup-format-{}.tar", std::process::id()));
    fs::write(&path, &archive).unwrap();
    let listing = Command::new("tar").arg("--list").arg("--file").arg(&path).output().unwrap();
    fs::remove_file(path).unwrap();
    let listing = String::from_utf8(listing.stdout).unwrap();
    let lengths: Vec<usize> = listing.lines().map(str::len).collect();
    assert_eq!(lengths, [1, 99, 100, 101, 255, 1000, 6, 8, 8, 8, 11]);
}

#[test]
fn archives_that_are_cut_off_or_changed_are_refused() {
    let archive = run(WRITE, b"");
    let last = |bytes: &[u8]| {
        let said = String::from_utf8(run(READ, bytes)).unwrap();
        said.lines().last().unwrap().to_owned()
    };
    // The second block of the end may be missing.
    for length in [0, 1, 511, 512, 513, 1023, archive.len() / 2, archive.len() - 1025, archive.len() - 1024] {
        assert_eq!(last(&archive[..length]), "65 the archive is cut off: it has no end", "{length} bytes");
    }
    for place in [0, 50, 124, 130, 148, 150, 156, 257, 345, 511] {
        let mut changed = archive.clone();
        changed[place] ^= 1;
        let said = last(&changed);
        assert!(said.starts_with("65 "), "byte {place}: {said}");
    }
    assert_eq!(last(&[0; 10240]), "end", "zeros are the end of an archive");
    assert!(last(&b"#!/bin/sh\n".repeat(100)).starts_with("65 "));
}

#[test]
fn only_files_are_read_from_an_archive() {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("members-{}", std::process::id()));
    fs::create_dir_all(folder.join("directory")).unwrap();
    fs::write(folder.join("file"), "text").unwrap();
    fs::hard_link(folder.join("file"), folder.join("hard")).unwrap();
    std::os::unix::fs::symlink("file", folder.join("link")).unwrap();
    let pack = |names: &[&str]| {
        let mut command = Command::new("tar");
        command.args(["--create", "--format", "ustar", "--directory"]).arg(&folder).args(names);
        command.output().unwrap().stdout
    };
    for (names, expected) in [
        (&["file"][..], "4\t4\nend\n"),
        (&["directory"], "65 the archive has something in it that is no file: directory/\n"),
        (&["link"], "65 the archive has something in it that is no file: link\n"),
        (&["file", "hard"], "4\t4\n65 the archive has something in it that is no file: hard\n"),
    ] {
        assert_eq!(String::from_utf8(run(READ, &pack(names))).unwrap(), expected, "{names:?}");
    }
    fs::remove_dir_all(folder).unwrap();
}

/// Runs Lua after `src/data/lists.lua`, with lists of three items, the second with text that looks like items.
fn run_with_lists(lua: &str) {
    const LISTS: &str = concat!(
        "local modified, kind, on_sleep = 0, 'file', nil\n",
        "package.preload.lfs = function()\n",
        "return { attributes = function() return modified end, symlinkattributes = function() return kind end }\n",
        "end\n",
        "local function load_lists(...)\n",
        include_str!("../src/data/lists.lua"),
        "end\n",
        r#"
        local name = os.tmpname()
        local path, index = name .. ".list", name .. ".lidx"
        local function put(text) local file = assert(io.open(path, "wb")) file:write(text) file:close() end
        local function get(name)
            local file <close> = io.open(name, "rb")
            return file and file:read("a")
        end
        local function item(text) return "item({\n\t{\n\t\t\"" .. text .. "\";\n\t};\n\t[\"name\"] = \"message\";\n});\n" end
        local pieces = { item("one"), item("\\\nitem({});\\\nitem(1);\\\n]] item({\\\n"), item("three") }
        local list = table.concat(pieces)
        -- Returns the texts that a server finds, joined. It finds items by lines.
        local function found()
            local texts, starts = {}, 0
            local function take(item) texts[#texts + 1] = item[1][1] end
            assert(load(get(path), "=list", "t", { item = take }))()
            for line in get(path):gmatch("[^\n]+") do if line:find("^item%({$") then starts = starts + 1 end end
            assert(starts == #texts, starts .. " lines for " .. #texts .. " items")
            return table.concat(texts, "|")
        end
        -- Checks the file. Returns the texts that are read, the level and the text.
        local function check(options)
            local texts = {}
            local function sleep() if on_sleep then on_sleep() end end
            local level, text = load_lists(options, sleep)(path, function (item) texts[#texts + 1] = item[1][1] end)
            return table.concat(texts, "|"), level, text
        end
        -- What a server finds in whole pieces.
        local function whole(...)
            put(table.concat({ ... }))
            return found()
        end
        "#
    );
    run(
        &format!(
            "{LISTS}{lua}\nfor _, file in ipairs {{ name, path, path .. '.torn', index }} do os.remove(file) end"
        ),
        b"",
    );
}

#[test]
fn a_list_that_is_cut_off_at_any_byte_is_repaired() {
    run_with_lists(
        r#"
        for cut = 0, #list do
            -- The last two bytes, `;` and a line feed, are no loss.
            local count, kept = 0, 0
            for _, piece in ipairs(pieces) do
                if cut < kept + #piece - 2 then break end
                count, kept = count + 1, kept + #piece
            end
            local expected = whole(table.unpack(pieces, 1, count))
            put(list:sub(1, cut))
            local torn = list:sub(kept + 1, cut)
            local texts, level, text = check {}
            assert(texts == expected and level == (torn ~= "" and "cut off" or nil), ("%d: %s, %s"):format(cut, texts, level))
            assert(get(path) == list:sub(1, cut) and not get(path .. ".torn"), cut)
            io.open(index, "w"):close()
            texts, level, text = check { repairs = true }
            assert(get(index) == (cut == kept and "" or nil), cut .. ": the index")
            assert(texts == expected and found() == expected, cut .. ": " .. texts)
            assert(level == (torn ~= "" and "warning" or nil), cut)
            assert((get(path .. ".torn") or "") == torn, cut)
            os.remove(path .. ".torn")
            local size = #get(path)
            assert(size == (count == 0 and 0 or cut), cut .. ": " .. size)
            texts, level = check { repairs = true }
            assert(texts == expected and not level, cut)
            put(get(path) .. item("four"))
            assert(found() == (expected .. "|four"):gsub("^|", ""), cut)
        end
        "#,
    );
}

#[test]
fn a_part_of_an_item_before_others_is_removed() {
    run_with_lists(
        r#"
        local rests = { pieces[1], pieces[2], pieces[1] .. pieces[3], pieces[3]:sub(1, -3) }
        for place, piece in ipairs(pieces) do
            for cut = 1, #piece do
                for number, rest in ipairs(rests) do
                    modified = 50
                    local before = place == 1 and "" or pieces[1]
                    local is_whole = cut >= #piece - 2
                    local expected = whole(before, is_whole and piece or "", rest)
                    put(before .. piece:sub(1, cut) .. rest)
                    local texts, level = check { repairs = true, served_since = cut % 2 == 0 and 100 or nil }
                    local case = place .. " " .. cut .. " " .. number
                    assert(texts == expected and found() == expected, case .. ": " .. found())
                    assert(level == (not is_whole and "warning" or nil), case)
                    assert((get(path .. ".torn") or "") == (is_whole and "" or piece:sub(1, cut)), case)
                    os.remove(path .. ".torn")
                end
            end
        end
        "#,
    );
}

#[test]
fn a_list_that_a_server_may_be_writing_stays() {
    run_with_lists(
        r#"
        modified = 100
        local cut = #list - 5
        local options = { repairs = true, served_since = 100 }
        -- The rest comes while it waits.
        put(list:sub(1, cut))
        local waits = 0
        on_sleep = function () waits = waits + 1; if waits == 3 then put(list) end end
        local texts, level = check(options)
        assert(texts == whole(list) and not level and waits == 3, texts)
        on_sleep = nil
        -- It does not come.
        put(list:sub(1, cut))
        texts, level = check(options)
        assert(texts == whole(pieces[1], pieces[2]) and level == "cut off beside a server", level)
        put(list:sub(1, cut))
        check(options)
        assert(get(path) == list:sub(1, cut) and not get(path .. ".torn"))
        -- What precedes a whole item is not being written.
        put(pieces[1] .. pieces[2]:sub(1, 20) .. pieces[3])
        texts, level = check(options)
        assert(level == "warning" and found() == "one|three", level)
        -- A link is not followed.
        kind = "link"
        put(pieces[1]:sub(1, 20) .. pieces[3])
        texts, level, text = check { repairs = true }
        assert(level == "error" and text == "Not repaired: " .. path .. " is a link", text)
        assert(get(path) == pieces[1]:sub(1, 20) .. pieces[3])
        kind = "file"
        -- The list is older than the server. Without a whole item it would have to become shorter.
        modified = 99
        put(pieces[1]:sub(1, 20))
        texts, level = check(options)
        assert(level == "cut off beside a server" and get(path) == pieces[1]:sub(1, 20), level)
        "#,
    );
}
