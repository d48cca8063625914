//! Whole templates. The expected texts were compared with what Docker 28's client (Go 1.24) prints for the same data.

use serde_json::{Map, Value, json};

use super::{Missing, Template, unescape};

fn data() -> Value {
    json!({
        "s": "hi", "e": "", "n": null, "t": true, "f": false, "i": 7, "x": 1.5,
        "l": ["a", "b"], "el": [], "m": {"k": "v", "a": "<b>"}, "em": {},
        "ll": [["x"], ["y", "z"]], "objs": [{"N": "one"}, {"N": "two"}], "u": "hé\"llo\n",
    })
}

fn render(text: &str) -> String {
    match Template::parse(text).and_then(|template| template.render(&data())) {
        Ok(text) => text,
        Err(error) => error.to_string(),
    }
}

/// The part of a message after `template parsing error: template: `.
fn failure(text: &str) -> String {
    match render(text).strip_prefix("template parsing error: template: ") {
        Some(message) => message.to_owned(),
        None => panic!("{text} is no error"),
    }
}

#[test]
fn values_print_as_in_go() {
    for (text, want) in [
        ("{{.s}}|{{.e}}|{{.n}}|{{.t}}|{{.i}}|{{.x}}", "hi||<no value>|true|7|1.5"),
        (
            "{{.l}}{{.el}}{{.em}}{{.m}}{{.ll}}{{.objs}}",
            "[a b][]map[]map[a:<b> k:v][[x] [y z]][map[N:one] map[N:two]]",
        ),
        (
            "{{json .l}} {{.u | json}} {{json .n}} {{json \"<a&b>\"}} {{json 1.0}} {{json 1.5}}",
            "[\"a\",\"b\"] \"hé\\\"llo\\n\" null \"<a&b>\" 1 1.5",
        ),
        ("{{print .n}} {{print \"a\" 1 2 \"b\" 3}} {{print 1 2}} {{print .s .s}}", "<nil> a1 2b3 1 2 hihi"),
        ("{{println \"a\" 1}}|", "a 1\n|"),
        (
            "{{`raw\\t`}} {{\"esc\\t\\x41\"}} {{'a'}} {{0x1F}} {{1e3}} {{-5}} {{1e-7}}",
            "raw\\t esc\tA 97 31 1000 -5 1e-07",
        ),
        ("{{$.s}} {{.l | len}} {{(index .objs 1).N}} {{index .ll 1 1}} {{index .m \"k\"}}", "hi 2 two z v"),
    ] {
        assert_eq!(render(text), want, "{text}");
    }
}

#[test]
fn control() {
    for (text, want) in [
        (
            "{{range .l}}<{{.}}>{{end}}{{range .el}}x{{else}}none{{end}}{{range .n}}x{{else}}nil{{end}}",
            "<a><b>nonenil",
        ),
        (
            "{{range $i, $e := .l}}{{$i}}={{$e}},{{end}}{{range $k, $v := .m}}{{$k}}={{$v}},{{end}}",
            "0=a,1=b,a=<b>,k=v,",
        ),
        ("{{range $e := .l}}{{$e}}{{$.s}},{{end}}{{range 3}}{{.}}{{end}}", "ahi,bhi,012"),
        ("{{range $i, $e := .l}}{{if eq $i 1}}{{break}}{{end}}{{$e}}{{end}}", "a"),
        ("{{range $i, $e := .l}}{{if eq $i 0}}{{continue}}{{end}}{{$e}}{{end}}", "b"),
        ("{{if .f}}1{{else if .e}}2{{else if .t}}3{{else}}4{{end}}", "3"),
        ("{{with .em}}x{{else with .m}}{{.k}}{{else}}n{{end}}{{with $x := .m}}{{$x.k}}{{end}}", "vv"),
        ("{{$x := .s}}{{$x}}{{$x = \"new\"}}{{$x}}{{if .t}}{{$x := 1}}{{$x = 2}}{{end}}{{$x}}", "hinewnew"),
        ("{{range .l}}{{$x := .}}{{$x}}{{end}}{{$y := 0}}{{range .l}}{{$y = .}}{{end}}{{$y}}", "abb"),
        ("{{define \"a\"}}<{{.}}>{{end}}{{template \"a\" .s}}{{template \"a\"}}", "<hi><<no value>>"),
        ("{{block \"b\" .l}}[{{range .}}{{.}}{{end}}]{{end}}", "[ab]"),
        ("  {{- .s -}}  x  {{- /* c */ -}}  y {{/* c */}} z\n{{- 3}}", "hixy  z3"),
        ("{{with .s}}{{with $.m}}{{.k}}{{end}}{{.}}{{end}}{{.s |}}", "vhihi"),
        ("{{if\n.t}}x{{end}}", "x"),
    ] {
        assert_eq!(render(text), want, "{text}");
    }
}

#[test]
fn functions() {
    for (text, want) in [
        (
            "{{eq .s \"a\" \"hi\"}} {{ne .s \"hi\"}} {{lt 1 2}} {{le 2 2}} {{gt 1 2}} {{ge 3 2}}",
            "true false true true false true",
        ),
        (
            "{{eq .n nil}} {{eq .n 1}} {{eq .l nil}} {{lt \"a\" \"b\"}} {{lt 1.5 2.5}}",
            "true false false true true",
        ),
        ("{{and .t .s}} {{and .f .zz}} {{or .f .e \"d\"}} {{or .t .zz}} {{not .n}}", "hi false d true true"),
        ("{{.t | and .s}} {{.s | or .f}} {{\"x\" | and .f}}", "true hi false"),
        (
            "{{join .l \",\"}} {{split \"a,b,c\" \",\"}} {{index (split \"a,b\" \",\") 1}} {{json (split \"ab\" \"\")}}",
            "a,b [a b c] b [\"a\",\"b\"]",
        ),
        (
            "{{upper .s}} {{lower \"ABC\"}} {{title \"hello wide-world o'neil foo_bar\"}}",
            "HI abc Hello Wide-World O'Neil Foo_bar",
        ),
        (
            "{{pad \"x\" 2 3}}|{{pad \"\" 2 3}}|{{truncate \"héllo\" 2}} {{truncate \"hi\" 9}}",
            "  x   ||hé hi",
        ),
        ("{{slice \"hello\" 1 3}} {{slice .l 1}} {{slice .l 0 1}} {{slice .l 0 1 1}}", "el [b] [a] [a]"),
        ("{{len .l}} {{len .s}} {{len .m}} {{len .u}}", "2 2 2 8"),
    ] {
        assert_eq!(render(text), want, "{text}");
    }
}

#[test]
fn printf() {
    for (arguments, want) in [
        (r#""%s %d %v %q %x" .s 42 .l "q\"t" 255"#, r#"hi 42 [a b] "q\"t" ff"#),
        (r#""%d" .s"#, "%!d(string=hi)"),
        (r#""%s" 1"#, "%!s(int=1)"),
        (r#""%d""#, "%!d(MISSING)"),
        (r#""%d" 1 2"#, "1%!(EXTRA int=2)"),
        (r#""%""#, "%!(NOVERB)"),
        (r#""%d %s" "a" nil"#, "%!d(string=a) %!s(<nil>)"),
        (
            r#""%5d|%-5d|%05d|%+d|% d|%#x|%X|%o|%O|%b|%c|%U|%q" 42 42 42 42 42 255 255 8 8 5 65 65 65"#,
            "   42|42   |00042|+42| 42|0xff|FF|10|0o10|101|A|U+0041|'A'",
        ),
        (
            r#""%.3d|%08d|%+08d|%-08d|%#08x|%08x" 5 -42 42 42 255 -255"#,
            "005|-0000042|+0000042|42      |0x000000ff|-00000ff",
        ),
        (
            r#""%5s|%-5s|%05s|%.2s|%x|% x|%#x|%# x" "abc" "abc" "abc" "abc" "abc" "abc" "abc" "abc""#,
            "  abc|abc  |00abc|ab|616263|61 62 63|0x616263|0x61 0x62 0x63",
        ),
        (
            r#""%v %v %v %g %.3g %.3g" 1.0 1000000.0 123456789.0 0.00001 999.9 1234.0"#,
            "1 1e+06 1.23456789e+08 1e-05 1e+03 1.23e+03",
        ),
        (
            r#""%f %.2f %e %8.2f|%-8.2f|%08.2f|%+.1f" 1.5 1.555 1.5 3.14159 3.14159 -3.14159 2.0"#,
            "1.500000 1.55 1.500000e+00     3.14|3.14    |-0003.14|+2.0",
        ),
        (
            r#""%T %T %T %T %T %t" 1 1.5 "s" .l .m true"#,
            "int float64 string []interface {} map[string]interface {} true",
        ),
        (
            r#""%#v %q %d" .m .l .l"#,
            r#"map[string]interface {}{"a":"<b>", "k":"v"} ["a" "b"] [%!d(string=a) %!d(string=b)]"#,
        ),
        (r#""%[2]d %[1]d|%[3]d" 1 2"#, "2 1|%!d(BADINDEX)"),
        (r#""%*d|%-*d|%.*f" 5 42 5 42 2 1.234"#, "   42|42   |1.23"),
        (r#""%99999999d" 1"#, "%!(BADWIDTH)1"),
        (r#""%s%%" (json .l)"#, r#"["a","b"]%"#),
    ] {
        assert_eq!(render(&format!("{{{{printf {arguments}}}}}")), want, "{arguments}");
    }
}

#[test]
fn messages() {
    for (text, want) in [
        ("{{.zz}}", r#":1:2: executing "" at <.zz>: map has no entry for key "zz""#),
        ("{{.s}}\n  {{.m.zz}}", r#":2:6: executing "" at <.m.zz>: map has no entry for key "zz""#),
        ("{{.n.x}}", r#":1:4: executing "" at <.n.x>: nil pointer evaluating interface {}.x"#),
        ("{{.s.x}}", r#":1:4: executing "" at <.s.x>: can't evaluate field x in type interface {}"#),
        (
            "{{index .l 5}}",
            r#":1:2: executing "" at <index .l 5>: error calling index: index out of range: 5"#,
        ),
        (
            "{{index .l -1}}",
            r#":1:2: executing "" at <index .l -1>: error calling index: index out of range: -1"#,
        ),
        (
            "{{eq 1 1.0}}",
            r#":1:2: executing "" at <eq 1 1.0>: error calling eq: incompatible types for comparison"#,
        ),
        ("{{len 3}}", r#":1:2: executing "" at <len 3>: error calling len: len of type int"#),
        ("{{len}}", r#":1:2: executing "" at <len>: wrong number of args for len: want 1 got 0"#),
        ("{{upper 1}}", r#":1:8: executing "" at <1>: expected string; found 1"#),
        ("{{upper .i}}", r#":1:8: executing "" at <.i>: wrong type for value; expected string; got int"#),
        ("{{range .s}}{{end}}", r#":1:8: executing "" at <.s>: range can't iterate over hi"#),
        ("{{.s \"x\"}}", r#":1:2: executing "" at <.s>: s is not a method but has arguments"#),
        ("{{1 2}}", r#":1:2: executing "" at <1>: can't give argument to non-function 1"#),
        ("{{template \"zz\"}}", r#":1:11: executing "" at <{{template "zz"}}>: template "zz" not defined"#),
        ("{{.s", ":1: unclosed action"),
        ("{{if .s}}x", ":1: unexpected EOF"),
        ("{{end}}", ":1: unexpected {{end}}"),
        ("\n{{foo}}", ":2: function \"foo\" not defined"),
        ("{{$z}}", ":1: undefined variable \"$z\""),
        ("{{}}", ":1: missing value for command"),
        ("{{.s}", ":1: bad character U+007D '}'"),
        ("{{\"x}}", ":1: unterminated quoted string"),
        ("{{/* x }}", ":1: unclosed comment"),
        ("{{.s | 1}}", ":1: non executable command in pipeline stage 2"),
        ("{{nil}}", ":1:2: executing \"\" at <nil>: nil is not a command"),
        ("{{(1}}", ":1: unclosed left paren"),
        ("{{1)}}", ":1: unexpected right paren"),
        ("{{break}}", ":1: {{break}} outside {{range}}"),
        ("{{1x}}", ":1: bad number syntax: \"1x\""),
        ("{{.a..b}}", ":1: unexpected <.> in operand"),
    ] {
        assert_eq!(failure(text), want, "{text}");
    }
    // The field exists, but `range` inside of `define` runs under another name.
    let named = failure("{{define \"a\"}}{{.zz}}{{end}}{{template \"a\" .m}}");
    assert_eq!(named, r#":1:16: executing "a" at <.zz>: map has no entry for key "zz""#);
}

#[test]
fn absent_fields_can_be_printed() -> Result<(), super::TemplateError> {
    let template = Template::parse("{{.zz}} {{.zz.y}} {{printf \"%v\" .zz}} {{if .zz}}x{{end}}")?;
    assert_eq!(template.missing(Missing::NoValue).render(&data())?, "<no value> <no value> <nil> ");
    Ok(())
}

#[test]
fn rows_have_labels() -> Result<(), super::TemplateError> {
    let labels = Map::from_iter([("a.b".to_owned(), json!("c,d"))]);
    let template = Template::parse("{{.s}} {{.Label \"a.b\"}}{{.Label \"zz\"}} {{\"a.b\" | .Label}}")?;
    assert_eq!(template.render_row(&data(), &labels)?, "hi c,d c,d");
    assert!(Template::parse("{{.Label}}")?.render_row(&data(), &labels).is_err());
    assert!(Template::parse("{{.Label 1}}")?.render_row(&data(), &labels).is_err());
    assert!(template.render(&data()).is_err());
    Ok(())
}

#[test]
fn headers_keep_titles() -> Result<(), super::TemplateError> {
    let titles = json!({"ID": "CONTAINER ID", "Names": "NAMES"});
    let header = |text: &str| Template::parse(text).map(|template| template.render_header(&titles));
    assert_eq!(
        header("{{json .ID}}\t{{.Names | lower}}\t{{truncate .ID 3}}")?,
        "CONTAINER ID\tNAMES\tCONTAINER ID"
    );
    assert_eq!(
        header("{{.CreatedAt}}\t{{.Label \"com.x.my-label\"}}\t{{.State.Status}}")?,
        "CREATED AT\tmy label\tSTATUS"
    );
    assert_eq!(header("{{.ID}}\t{{join .Ports \",\"}}\t{{.Names}}")?, "CONTAINER ID\t");
    Ok(())
}

#[test]
fn escapes_of_listings() {
    assert_eq!(unescape(r"{{.A}}\t{{.B}}\n\x"), "{{.A}}\t{{.B}}\n\\x");
}

#[test]
fn what_runs_away_is_stopped() {
    let double = "{{$x := \"0123456789\"}}".to_owned() + &"{{$x = printf \"%s%s\" $x $x}}".repeat(60);
    let nested =
        |open: &str, close: &str, n: usize| format!("{{{{{}1{}}}}}", open.repeat(n), close.repeat(n));
    for (text, want) in [
        ("{{define \"r\"}}{{template \"r\"}}{{end}}{{template \"r\"}}".to_owned(), "maximum template depth"),
        (
            "{{define \"r\"}}{{range 9}}{{template \"r\"}}{{template \"r\"}}{{end}}{{end}}{{template \"r\"}}"
                .to_owned(),
            "maximum template depth",
        ),
        ("{{range 9223372036854775807}}{{end}}".to_owned(), "takes too long"),
        ("{{range 99999}}{{range 99999}}{{end}}{{end}}".to_owned(), "takes too long"),
        ("{{range 9999}}{{printf \"%999999d\" 1}}{{end}}".to_owned(), "takes too long"),
        (double, "string longer"),
        ("{{pad \"x\" 9223372036854775807 1}}".to_owned(), "cannot pad"),
        (nested("(", ")", 100_000), "nested too deeply"),
        ("{{if 1}}".repeat(100_000), "nested too deeply"),
        ("{{if 0}}".to_owned() + &"{{else if 0}}".repeat(100_000), "nested too deeply"),
        ("{{define \"x\"}}".repeat(100_000), "unexpected"),
        ("{{block \"x\" .}}".repeat(100_000), "nested too deeply"),
    ] {
        let message = failure(&text);
        let start: String = text.chars().take(40).collect();
        assert!(message.contains(want), "{start}: {message}");
        assert!(!message.contains('\n'), "{start}");
    }
}

/// Every template above, cut, doubled and mixed; nothing may panic, and every message is one line.
#[test]
fn no_input_panics() {
    let source = include_str!("tests.rs");
    let pieces: Vec<&str> =
        source.split_inclusive([' ', '{', '}', '(', ')', '.', '"', '%', '|', '\n']).collect();
    // xorshift: the same sequence on every run.
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % u64::try_from(below.max(1)).unwrap_or(1)).unwrap_or(0)
    };
    let value = data();
    let templates: Vec<&str> = source.split('"').filter(|text| text.contains("{{")).collect();
    for round in 0..6_000 {
        let mut text = match round % 3 {
            0 => "{{".to_owned(),
            _ => templates[random(templates.len())].to_owned(),
        };
        for _ in 0..random(6) + 1 {
            let boundaries: Vec<usize> = (0..=text.len()).filter(|at| text.is_char_boundary(*at)).collect();
            let at = boundaries[random(boundaries.len())];
            match random(4) {
                0 => text.truncate(at),
                1 => text.replace_range(at.., &text[at..].chars().skip(1).collect::<String>()),
                2 => text.insert_str(at, ["{{", "}}", "\"", "(", " ", "é", "%", "$", "\\"][random(9)]),
                _ => text.insert_str(at, pieces[random(pieces.len())]),
            }
        }
        let Ok(template) = Template::parse(&text) else { continue };
        template.render_header(&value);
        if let Err(error) = template.render(&value) {
            assert!(!error.to_string().contains(['\n', '\r']), "{text}");
        }
    }
}
