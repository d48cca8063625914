//! Whole files: what they mean, and what is said of those that mean nothing.

use proptest::prelude::*;

use super::*;

fn steps(text: &str) -> Vec<Instruction> {
    let file =
        Dockerfile::parse(&format!("FROM scratch\n{text}")).unwrap_or_else(|fault| panic!("{text}: {fault}"));
    file.stages[0].steps.iter().map(|step| step.instruction.clone()).collect()
}

fn one(text: &str) -> Instruction {
    let mut all = steps(text);
    assert_eq!(all.len(), 1, "{text}");
    all.remove(0)
}

fn pairs(all: &[(&str, &str)]) -> Vec<(String, String)> {
    all.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
}

#[test]
fn stages() {
    let file = Dockerfile::parse(
        "ARG V=1\nFROM --platform=$BUILDPLATFORM image:$V AS Build\nRUN make\nFROM scratch\nCOPY --from=build /a /b\n",
    )
    .unwrap();
    assert_eq!(file.globals[0].0, "V");
    let [build, last] = file.stages.as_slice() else { panic!("{file:?}") };
    assert_eq!(build.name.as_deref(), Some("build"));
    assert_eq!(build.platform.as_deref(), Some("$BUILDPLATFORM"));
    assert_eq!((build.base.as_str(), last.base.as_str()), ("image:$V", "scratch"));
    let Instruction::Copy(copy) = &last.steps[0].instruction else { panic!("{last:?}") };
    assert_eq!(copy.from.as_deref(), Some("build"));
    assert_eq!(last.steps[0].lines, Lines { first: 5, last: 5 });
}

#[test]
fn settings() {
    assert_eq!(one("ENV A=1 B=\"x y\""), Instruction::Env(pairs(&[("A", "1"), ("B", "\"x y\"")])));
    assert_eq!(one("env A x  y"), Instruction::Env(pairs(&[("A", "x  y")])));
    assert_eq!(one("LABEL a=b \\\n  c=d"), Instruction::Label(pairs(&[("a", "b"), ("c", "d")])));
    assert_eq!(one("CMD [\"a\", \"b\"]"), Instruction::Cmd(Command::Exec(vec!["a".into(), "b".into()])));
    assert_eq!(one("CMD a [b"), Instruction::Cmd(Command::Shell("a [b".into())));
    assert_eq!(one("CMD ['a']"), Instruction::Cmd(Command::Shell("['a']".into())));
    assert_eq!(one("VOLUME /a /b"), Instruction::Volume(vec!["/a".into(), "/b".into()]));
    assert_eq!(one("EXPOSE 80 90/udp"), Instruction::Expose(vec!["80".into(), "90/udp".into()]));
    assert_eq!(one("ARG A B=2"), Instruction::Arg(vec![("A".into(), None), ("B".into(), Some("2".into()))]));
    assert_eq!(one("ONBUILD RUN x"), Instruction::Onbuild("RUN x".into()));
    assert_eq!(
        one("SHELL [\"/bin/bash\", \"-c\"]"),
        Instruction::Shell(vec!["/bin/bash".into(), "-c".into()])
    );
}

#[test]
fn running_and_copying() {
    let Instruction::Run(run) =
        one("RUN --mount=type=cache,target=/c,sharing=locked --network=none make all")
    else {
        panic!()
    };
    assert_eq!(run.mounts[0].kind, MountType::Cache);
    assert_eq!(run.mounts[0].get(&["target"]), Some("/c"));
    assert_eq!((run.network.as_deref(), run.command), (Some("none"), Command::Shell("make all".into())));
    let Instruction::Copy(copy) = one("COPY --chown=1:2 --exclude=*.o --exclude=x --link a \"b c\" /d/")
    else {
        panic!()
    };
    assert_eq!(copy.sources.len(), 2);
    assert_eq!((copy.chown.as_deref(), copy.link, copy.exclude.len()), (Some("1:2"), true, 2));
    assert_eq!(copy.target, "/d/");
    let Instruction::Copy(copy) = one("COPY <<EOF <<'X' a /d/\none\nEOF\ntwo\nX") else { panic!() };
    let names: Vec<String> = copy
        .sources
        .iter()
        .map(|source| match source {
            CopySource::Path(path) => path.clone(),
            CopySource::Heredoc(heredoc) => format!("{}:{}", heredoc.name, heredoc.content.trim()),
        })
        .collect();
    assert_eq!(names, ["EOF:one", "X:two", "a"]);
    let Instruction::Copy(copy) = one("COPY [\"a b\", \"/c\"]") else { panic!() };
    assert_eq!(copy.sources, [CopySource::Path("a b".into())]);
}

#[test]
fn mistakes_have_a_line_and_a_reason() {
    for (text, line, message) in [
        ("", 1, "file with no instructions"),
        ("ARG A\n", 1, "no build stage"),
        ("RUN x\n", 1, "no build stage in current context"),
        ("FROM a\nRUNN x\n", 2, "unknown instruction: RUNN"),
        ("FROM a b\n", 1, "FROM requires either one or three arguments"),
        ("FROM a AS 1x\n", 1, "invalid name for build stage"),
        ("FROM a AS x\nFROM b AS X\n", 2, "duplicate name x"),
        ("FROM --colour=red a\n", 1, "unknown flag: --colour"),
        ("FROM a\n\nCOPY x\n", 3, "COPY requires at least two arguments"),
        ("FROM a\nCOPY --form=x a b\n", 2, "unknown flag: --form"),
        ("FROM a\nCOPY --link=maybe a b\n", 2, "expecting boolean value"),
        ("FROM a\nENV A\n", 2, "ENV must have two arguments"),
        ("FROM a\nENV A=1 B\n", 2, "can't find = in \"B\""),
        ("FROM a\nENV =1\n", 2, "names can not be blank"),
        ("FROM a\nSHELL bash\n", 2, "JSON form"),
        ("FROM a\nRUN\n", 2, "RUN requires at least one argument"),
        ("FROM a\nRUN --mount=type=disk,target=/x y\n", 2, "unsupported mount type \"disk\""),
        ("FROM a\nRUN --mount=type=cache y\n", 2, "no target"),
        ("FROM a\nRUN --mount=target=/x,sorce=y z\n", 2, "unexpected key 'sorce'"),
        ("FROM a\nRUN --network=any y\n", 2, "invalid value \"any\" for --network"),
        ("FROM a\nONBUILD ONBUILD RUN x\n", 2, "Chaining ONBUILD"),
        ("FROM a\nONBUILD FROM x\n", 2, "FROM isn't allowed as an ONBUILD trigger"),
        ("FROM a\nHEALTHCHECK maybe\n", 2, "expected NONE or CMD"),
        ("FROM a\nUSER --x=1 y\n", 2, "unknown flag: --x"),
    ] {
        let fault = Dockerfile::parse(text).map(|file| panic!("{text:?}: {file:?}")).unwrap_err();
        assert_eq!(fault.lines.first, line, "{text:?}: {fault}");
        assert!(fault.message.contains(message), "{text:?}: {fault}");
    }
    let fault = Dockerfile::parse("FROM a\nCPOY x y\n").unwrap_err();
    assert_eq!(fault.hint.as_deref(), Some("did you mean COPY?"));
}

#[test]
fn size_is_bounded() {
    assert!(Dockerfile::parse(&"#".repeat(MAX_SIZE + 1)).is_err());
    assert!(Dockerfile::parse(&format!("FROM a\n{}", "USER x\n".repeat(30_000))).is_err());
    assert!(Dockerfile::parse(&format!("FROM a\nRUN {}", "x \\\n".repeat(500_000))).is_ok());
}

proptest! {
    #[test]
    fn nothing_panics(text in "((FROM|RUN|COPY|ENV|ARG|ADD|LABEL|ONBUILD|VOLUME|HEALTHCHECK|SHELL)? ?[-a-z=\"'\\\\\\[\\]<>,$ #\n]{0,12}){0,8}") {
        Dockerfile::parse(&text).ok();
        Dockerfile::parse(&format!("FROM a\n{text}")).ok();
    }
}
