//! What `lua::write` writes is given to real Lua interpreters, and what they read is compared with what was meant.
#![allow(clippy::string_slice, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Command, Stdio};

use minijinja::{Value, context};
use prosody_entrypoint::lua::{Dialect, Secrets, Version};
use prosody_entrypoint::templates::{Templates, values};

/// Reads literals (a line with the length, then as many bytes), and prints what each is: a line with a canonical
/// form of the value, or with the error. They are loaded without any global, so that a name in one is nil.
const READER: &str = r#"
local function scalar(v)
  local kind = math.type and math.type(v) or type(v)
  if kind == "integer" then return ("i:%d"):format(v) end
  if type(v) == "number" then return v ~= v and "f:nan" or ("f:%a"):format(v) end
  if type(v) == "string" then
    return "s:" .. v:gsub(".", function(c) return ("%02x"):format(c:byte()) end)
  end
  return tostring(v)
end
local function canonical(v)
  if type(v) ~= "table" then return scalar(v) end
  local fields = {}
  for key, value in pairs(v) do fields[#fields + 1] = scalar(key) .. "=" .. canonical(value) end
  table.sort(fields)
  return "{" .. table.concat(fields, ",") .. "}"
end
for length in io.lines() do
  local chunk, err = load("return " .. io.read(tonumber(length)), "=literal", "t", {})
  io.write(chunk and canonical(chunk()) or "error: " .. err, "\n")
end
"#;

fn read_by_lua(version: Version, literals: &[String]) -> Vec<String> {
    let interpreter = match version {
        Version::Lua52 => "lua5.2",
        Version::Lua53 => "lua5.3",
        Version::Lua54 => "lua5.4",
    };
    let mut lua = Command::new(interpreter)
        .args(["-e", READER])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| {
            panic!("{interpreter}: {error}. This test needs it: apt-get install {interpreter}")
        });
    let mut input = lua.stdin.take().unwrap();
    let output = std::thread::scope(|scope| {
        scope.spawn(move || {
            for literal in literals {
                write!(input, "{}\n{literal}", literal.len()).unwrap();
            }
        });
        lua.wait_with_output().unwrap()
    });
    assert!(output.status.success(), "{interpreter}: {}", output.status);
    let lines = String::from_utf8(output.stdout).unwrap();
    lines.lines().map(str::to_owned).collect()
}

/// The canonical form of what `value` means, as `READER` prints it.
fn canonical(value: &Value, version: Version) -> String {
    if let Some(bytes) = value.as_bytes() {
        return format!("s:{}", hex(bytes));
    }
    if let Some(pairs) = value.as_object().and_then(|object| object.try_iter_pairs()) {
        let is_list = value.kind() != minijinja::value::ValueKind::Map;
        let mut fields = Vec::new();
        for (key, item) in pairs {
            let key = match is_list {
                true => Value::from(key.as_i64().unwrap() + 1),
                // Lua itself turns a float key that has an integer's value into the integer.
                false => match f64::try_from(key.clone()) {
                    Ok(float) if float.fract() == 0.0 && float.abs() < 2f64.powi(53) => {
                        Value::from(float as i64)
                    }
                    _ => key,
                },
            };
            if !item.is_none() {
                fields.push(format!("{}={}", canonical(&key, version), canonical(&item, version)));
            }
        }
        fields.sort();
        return format!("{{{}}}", fields.join(","));
    }
    if value.is_none() {
        return "nil".into();
    }
    if !value.is_number() {
        return value.is_true().to_string();
    }
    match value.is_integer() && version >= Version::Lua53 {
        true => format!("i:{}", value.as_i64().unwrap()),
        false => format!("f:{}", c_hexadecimal(f64::try_from(value.clone()).unwrap())),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A float as C's `%a` prints it.
fn c_hexadecimal(float: f64) -> String {
    if float.is_nan() {
        return "nan".into();
    }
    let sign = if float.is_sign_negative() { "-" } else { "" };
    if float.is_infinite() {
        return format!("{sign}inf");
    }
    let mantissa = float.to_bits() & ((1 << 52) - 1);
    let digits = format!("{mantissa:013x}");
    let digits = digits.trim_end_matches('0');
    let point = if digits.is_empty() { "" } else { "." };
    let (lead, exponent) = match float.to_bits() >> 52 & 0x7ff {
        0 if mantissa == 0 => (0, 0),
        0 => (0, -1022),
        biased => (1, biased as i64 - 1023),
    };
    format!("{sign}0x{lead}{point}{digits}p{exponent:+}")
}

fn literal(value: &Value, version: Version) -> String {
    let mut literal = String::new();
    values::write(&mut literal, value, Dialect { version, secrets: Secrets::Written })
        .unwrap_or_else(|error| panic!("{value:?}: {error}"));
    literal
}

fn bytes(bytes: impl Into<Vec<u8>>) -> Value {
    Value::from_bytes(bytes.into())
}

fn map<const N: usize>(pairs: [(Value, Value); N]) -> Value {
    Value::from_object(BTreeMap::from(pairs))
}

/// A linear congruential generator with Knuth's constants: the same sequence in every run.
struct Random(u64);

impl Random {
    fn next(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % below
    }
}

fn strings() -> Vec<Value> {
    let mut values = vec![bytes([]), Value::from("x".repeat(100_000)), bytes((0..=255).collect::<Vec<u8>>())];
    values.extend((0..=255).map(|byte: u8| bytes([byte])));
    // Digits after whatever is escaped, so that an escape of the wrong length shows.
    for escaped in [0, 1, 7, 27, 127, 128, 255] {
        for digits in 0..100 {
            values.push(bytes(
                format!("{digits:02}")
                    .bytes()
                    .rev()
                    .chain([escaped])
                    .chain(format!("{digits:02}").bytes())
                    .collect::<Vec<u8>>(),
            ));
        }
    }
    for text in [
        r#"'"; os.execute("id") --"#,
        "]]",
        "]==]",
        "--[[",
        r"\",
        r#"\""#,
        r"\z",
        r"\x41\u{41}",
        "a\r\nb\n\rc",
        "{{ x }}",
        "${x}",
        "\u{feff}bom",
        "zwj \u{200d}",
        "\u{202e}over\u{202c}",
        "line\u{2028}separator",
        "\u{85}",
        "é ü 漢字 🐘",
        "\u{10ffff}",
    ] {
        values.push(text.into());
        values.push(Value::from_safe_string(text.into()));
    }
    let mut random = Random(1);
    for _ in 0..2_000 {
        let length = random.next(40);
        // All bytes, or only those that mean something in a Lua string.
        let alphabet: &[u8] = match random.next(2) {
            0 => b"\"\\\n\r\tz0123456789xu{}[]=-\0\x7f\x80\xc3\xa9",
            _ => &[],
        };
        let byte = |random: &mut Random| match alphabet.len() as u64 {
            0 => random.next(256) as u8,
            length => alphabet[random.next(length) as usize],
        };
        values.push(bytes((0..length).map(|_| byte(&mut random)).collect::<Vec<u8>>()));
    }
    values
}

fn numbers(version: Version) -> Vec<Value> {
    let exact = 1_i64 << 53;
    let mut integers = vec![0, 1, -1, 42, exact - 1, exact, 1 - exact, -exact];
    if version >= Version::Lua53 {
        integers.extend([exact + 1, -exact - 1, i64::MAX, i64::MAX - 1, i64::MIN, i64::MIN + 1]);
    }
    let mut values: Vec<Value> = integers.into_iter().map(Value::from).collect();
    values.extend([Value::from(7_u64), Value::from(7_u128), Value::from(-7_i128)]);
    let mut floats = vec![
        0.0,
        1.0,
        0.1,
        0.5,
        1.5,
        1e15,
        1e16,
        1e17,
        1e100,
        1e308,
        123456789.0,
        9007199254740993.0,
        2f64.powi(63),
        1e-5,
        1e-7,
        f64::MAX,
        f64::MIN_POSITIVE,
        f64::from_bits(1),
        f64::from_bits((1 << 52) - 1),
        f64::EPSILON,
        f64::INFINITY,
    ];
    let mut random = Random(2);
    for _ in 0..2_000 {
        let float = f64::from_bits(random.next(1 << 31) << 33 | random.next(1 << 31) << 2 | random.next(4));
        floats.extend(Some(float).filter(|float| float.is_finite()));
    }
    values.extend(floats.iter().flat_map(|float| [Value::from(*float), Value::from(-*float)]));
    values.push(f64::NAN.into());
    // One chunk with both zeros: a compiler that keeps constants by value may take one for the other.
    values.push(vec![Value::from(0.0), Value::from(-0.0), Value::from(0), Value::from(-0.0)].into());
    values
}

/// A list in a list in a list, as deep as ours go, each behind so many items.
fn nested(levels: usize, before: usize) -> Value {
    (0..levels).fold(Value::from("innermost"), |inner, _| {
        let mut list = vec![Value::from(1); before];
        list.push(inner);
        list.into()
    })
}

fn tables(version: Version) -> Vec<Value> {
    let mut values: Vec<Value> = vec![
        true.into(),
        false.into(),
        ().into(),
        Value::from(Vec::<Value>::new()),
        map([]),
        vec![Value::from("a"), Value::from(1), Value::from(0.5), Value::from(true)].into(),
        Value::from((1..=1000).collect::<Vec<i64>>()),
        Value::make_iterable(|| 1..4),
        map([("kept".into(), 1.into()), ("left out".into(), ().into())]),
        map([
            ("name".into(), 1.into()),
            ("_G".into(), 2.into()),
            ("with space".into(), 3.into()),
            ("".into(), 4.into()),
            ("9lives".into(), 5.into()),
            ("é".into(), 6.into()),
            ("]] = 1".into(), 7.into()),
            ("\"\\\n\0".into(), 8.into()),
            (bytes([0xff]), 9.into()),
            (bytes("bytes"), 10.into()),
        ]),
        map([(true.into(), "true".into()), (false.into(), "false".into())]),
        map([
            (1.into(), "one".into()),
            ((-3).into(), "minus three".into()),
            (0.5.into(), "half".into()),
            (f64::INFINITY.into(), "infinity".into()),
            ("1".into(), "a string".into()),
        ]),
        nested(100, 0),
        nested(33, 4),
        nested(3, 49),
        nested(50, 50),
        (0..100).fold(Value::from(1), |inner, _| map([("key".into(), inner)])),
        // So many constants come first that Lua loads every key into a register.
        vec![
            Value::from((0..1000).map(|n| format!("constant {n}")).collect::<Vec<_>>()),
            (0..98).fold(Value::from(1), |inner, n| map([(format!("key {n}").into(), inner)])),
        ]
        .into(),
    ];
    let reserved = "and break do else elseif end false for function goto if in local nil not or repeat return then true until while";
    values.extend(reserved.split(' ').map(|word| map([(word.into(), 1.into())])));
    if version >= Version::Lua53 {
        values.push(map([(i64::MIN.into(), 1.into()), (i64::MAX.into(), 2.into())]));
    }
    let mut random = Random(3);
    values.extend((0..300).map(|_| tree(&mut random, 4)));
    values
}

fn tree(random: &mut Random, depth: u64) -> Value {
    let leaf = |random: &mut Random| match random.next(4) {
        0 => Value::from(random.next(1 << 31) as i64 - (1 << 30)),
        1 => Value::from(random.next(1 << 31) as f64 / 1024.0),
        2 => Value::from(random.next(2) == 0),
        _ => bytes((0..random.next(20)).map(|_| random.next(256) as u8).collect::<Vec<u8>>()),
    };
    match random.next(3) {
        0 if depth > 0 => {
            (0..random.next(60)).map(|_| tree(random, depth - 2.min(depth))).collect::<Vec<_>>().into()
        }
        1 if depth > 0 => Value::from_object(
            (0..random.next(12)).map(|_| (leaf(random), tree(random, depth - 1))).collect::<BTreeMap<_, _>>(),
        ),
        _ => leaf(random),
    }
}

fn reads_back(version: Version) {
    let values = [strings(), numbers(version), tables(version)].concat();
    let literals: Vec<String> = values.iter().map(|value| literal(value, version)).collect();
    let read = read_by_lua(version, &literals);
    assert_eq!(read.len(), values.len());
    for ((value, literal), read) in values.iter().zip(&literals).zip(&read) {
        assert_eq!(*read, canonical(value, version), "{version:?} read {literal}");
    }
}

#[test]
fn lua_5_2_reads_back_every_value() {
    reads_back(Version::Lua52);
}

#[test]
fn lua_5_3_reads_back_every_value() {
    reads_back(Version::Lua53);
}

#[test]
fn lua_5_4_reads_back_every_value() {
    reads_back(Version::Lua54);
}

/// Ways to an output that leave `v` as it is.
const UNCHANGED: [&str; 9] = [
    "{{ v }}",
    "{{ v|safe }}",
    "{{ v|string }}",
    "{{ v|list|join }}",
    "{{ none|default(v, true) }}",
    "{% autoescape false %}{{ v }}{% endautoescape %}",
    "{% set ns = namespace() %}{% set ns.x = v %}{{ ns.x }}",
    "{% for x in [v] %}{{ x }}{% endfor %}",
    "{% set o %}{% block b %}{{ v }}{% endblock %}{% endset %}{{ self.b() }}",
];

/// Ways that capture output. What is captured is text like any other, so the literal of `v` is quoted once more.
const CAPTURED: [&str; 4] = [
    "{% set x %}{{ v }}{% endset %}{{ x }}",
    "{% set x %}{{ v }}{% endset %}{{ x|safe }}",
    "{% set x | safe %}{{ v }}{% endset %}{{ x }}",
    "{% filter safe %}{{ v }}{% endfilter %}",
];

/// Ways that make another text of `v`.
const CHANGED: [&str; 14] = [
    "{{ v|escape }}",
    "{{ v|e|safe }}",
    "{{ v ~ v }}",
    "{{ v ~ 1 ~ [v] }}",
    "{{ v + v }}",
    "{{ v * 2 }}",
    "{{ v|upper|title|lower }}",
    "{{ v|replace('e', v) }}",
    "{{ [v|safe, v]|join(v|safe) }}",
    "{{ '%s %s'|format(v, v) }}",
    "{{ ('%s'|safe)|format(v) }}",
    "{{ v|indent(4) }}",
    "{{ [v]|pprint }}",
    "{{ v[1:]|reverse }}",
];

#[test]
fn no_way_through_a_template_makes_code_of_a_value() {
    let hostile = [
        r#"'"; os.execute("id") --"#,
        "]]; os.execute('id') --",
        "a\nb\r\nos.execute('id')",
        "nul\0after",
        "{{ 7 * 7 }}",
    ];
    for version in [Version::Lua52, Version::Lua53, Version::Lua54] {
        let mut templates = Templates::new(Dialect { version, secrets: Secrets::Written }, 1);
        let mut outputs = Vec::new();
        for (way, v) in
            [&UNCHANGED[..], &CAPTURED, &CHANGED].concat().iter().flat_map(|way| hostile.map(|v| (*way, v)))
        {
            templates.add("way.j2", way).unwrap();
            let output = templates.render("way.j2", context! { v }).unwrap();
            outputs.push((way, v, output));
        }
        let literals: Vec<String> = outputs.iter().map(|(.., output)| output.clone()).collect();
        for ((way, v, output), read) in outputs.iter().zip(read_by_lua(version, &literals)) {
            let case = format!("{way} made {output} of {v:?}");
            if UNCHANGED.contains(way) {
                assert_eq!(read, format!("s:{}", hex(v.as_bytes())), "{case}");
            } else if CAPTURED.contains(way) {
                let literal = literal(&Value::from(*v), version);
                assert_eq!(read, format!("s:{}", hex(literal.as_bytes())), "{case}");
            } else {
                assert!(read.starts_with("s:"), "{case}, which is {read}");
            }
        }
    }
}
