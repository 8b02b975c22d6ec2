//! What a model lacks and has: its heads, and the commands that serve them.

use bertlet::format::SectionKind;
use bertlet::{Head, ModelFile, RunError};

use crate::failure::Failure;
use crate::options::Options;

/// The name of a head in errors, the section that holds it, what it is, and its command.
const SERVED: [(&str, SectionKind, &str, &str); 5] = [
    (Head::TokenClassifier.name(), SectionKind::TokenClassifier, "token classifier", "ner"),
    (
        Head::SequenceClassifier.name(),
        SectionKind::SequenceClassifier,
        "sequence classifier",
        "classify",
    ),
    ("masked_lm", SectionKind::MaskedLmTransform, "masked-word head", "fill-mask"),
    (Head::NextSentence.name(), SectionKind::NextSentence, "next-sentence head", "next-sentence"),
    (
        Head::QuestionAnswering.name(),
        SectionKind::QuestionAnswering,
        "question-answering head",
        "answer",
    ),
];

impl Options {
    /// Why a task cannot be done with this model: the head that it lacks, and those that it has.
    pub fn refused(&self, file: &ModelFile, error: RunError) -> Failure {
        let model = file.model();
        let lacks = |(name, ..): &&(&str, SectionKind, &str, &str)| matches!(error, RunError::MissingHead(missing) if missing == *name);
        let Some((_, _, what, command)) = SERVED.iter().find(lacks) else {
            return Failure::work(self.model.display(), error);
        };
        let has = SERVED.iter().filter(|(_, section, ..)| model.section(*section).is_some());
        let has: Vec<_> =
            has.map(|(_, _, what, command)| format!("a {what} (bertlet {command})")).collect();
        let has = match has.is_empty() {
            true => "it has no head, only vectors (bertlet embed)".into(),
            false => format!("it has {}", has.join(" and ")),
        };
        Failure::work(
            self.model.display(),
            format_args!("the model has no {what}, which {command} needs; {has}"),
        )
    }
}
