//! `bertlet verify`: whether a file is whole, and answers as it did where it was made.

use bertlet::selftest::{Report, SelfTest, SelfTestError};
use bertlet::{Printable, Session};
use lexopt::Parser;

use crate::Command;
use crate::failure::{Failure, print, zeros};
use crate::options::{Options, Takes};

pub const COMMAND: Command = Command {
    name: "verify",
    about: "checks a model file's checksums and numbers, and its self-test vectors if it has some",
    help: &["\
Usage: bertlet verify MODEL [--isa NAME] [--threads N] [--read]

Reads every byte of MODEL, compares the checksums of its sections, and checks the rules for numbers on
which equal bits depend; then runs the inputs that the file holds and compares every bit of the outputs
with those of the machine that wrote it. Exit status 1 and the place where something differs.

Example:
  bertlet verify model.bertlet
"],
    run,
};

fn run(parser: Parser) -> Result<(), Failure> {
    let options = Options::parse(parser, Takes::Model, &mut |_, _| Ok(false))?;
    let file = options.open()?;
    let model = file.model();
    let name = options.model.display();
    model.verify().map_err(|error| Failure::work(&name, error))?;
    let self_test = match SelfTest::of(&model) {
        Ok(test) => {
            let mut session = options.session(&file)?;
            let report =
                run_self_test(&mut session, &test)?.map_err(|error| Failure::work(&name, error))?;
            let isa = session.isa().name();
            format!("{} self-test inputs give the same bits on {isa}", report.cases)
        }
        Err(SelfTestError::Missing) => "no self-test vectors".into(),
        Err(error) => return Err(Failure::work(&name, error)),
    };
    let sections = model.sections().count();
    let name = Printable(name);
    print(&format!("{name}: {sections} sections have their checksums; {self_test}\n"))
}

/// Runs the inputs that the file holds.
fn run_self_test(
    session: &mut Session<'_>,
    test: &SelfTest<'_>,
) -> Result<Result<Report, SelfTestError>, Failure> {
    let mut out = zeros(test.values())?;
    Ok(match session.encoder(test.tokens()) {
        Ok(mut encoder) => test.run(&mut encoder, &mut out),
        Err(error) => Err(SelfTestError::Run(0, error)),
    })
}
