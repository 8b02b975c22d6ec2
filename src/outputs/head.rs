//! Logits: the pooler, the heads, the masked-word head.

use super::Pass;
use crate::error::RunError;
use crate::format::{Linear, Model, SectionKind};
use crate::kernels::{Activation, F32x16, flat};
use crate::linear::LinearScratch;
use crate::observer::HeadScratch;

/// A head that is one matrix: what a checkpoint was fine-tuned for.
///
/// ```
/// use bertlet::Head;
/// assert_eq!(Head::QuestionAnswering.name(), "question_answering");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head {
    /// One logit per label, for each token (`BertForTokenClassification`).
    TokenClassifier,
    /// One logit per label, for the input (`BertForSequenceClassification`).
    SequenceClassifier,
    /// Two logits for a pair of texts: "is next", "is not" (`BertForNextSentencePrediction`).
    NextSentence,
    /// Two logits for each token: start and end of the answer (`BertForQuestionAnswering`).
    QuestionAnswering,
}

/// The sections of the heads that need a pooler.
pub(crate) fn sections_on_pooler() -> impl Iterator<Item = SectionKind> {
    Head::ALL.into_iter().filter(|head| head.reads() == Reads::Pooler).map(Head::section)
}

/// What the matrix of a [`Head`] is applied to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reads {
    /// The last hidden state of each token.
    Tokens,
    /// The pooler's output.
    Pooler,
}

/// Name of the masked-word head, as [`Head::name`].
pub(crate) const MASKED_LM: &str = "masked_lm";
/// Name of the pooler, as [`Head::name`].
const POOLER: &str = "pooler";

impl Head {
    /// In the order of their variants.
    const TABLE: [(Self, &'static str, SectionKind, Reads); 4] = [
        (Self::TokenClassifier, "token_classifier", SectionKind::TokenClassifier, Reads::Tokens),
        (
            Self::SequenceClassifier,
            "sequence_classifier",
            SectionKind::SequenceClassifier,
            Reads::Pooler,
        ),
        (Self::NextSentence, "next_sentence", SectionKind::NextSentence, Reads::Pooler),
        (
            Self::QuestionAnswering,
            "question_answering",
            SectionKind::QuestionAnswering,
            Reads::Tokens,
        ),
    ];

    /// All heads.
    pub const ALL: [Self; 4] = {
        let t = Self::TABLE;
        [t[0].0, t[1].0, t[2].0, t[3].0]
    };

    /// Its name, as `bertlet inspect` and error messages have it.
    pub const fn name(self) -> &'static str {
        Self::TABLE[self as usize].1
    }

    /// The section of the file that holds its matrix.
    pub const fn section(self) -> SectionKind {
        Self::TABLE[self as usize].2
    }

    const fn reads(self) -> Reads {
        Self::TABLE[self as usize].3
    }

    /// The head whose matrix this section holds; `None` for other sections.
    pub fn from_section(kind: SectionKind) -> Option<Self> {
        Self::ALL.into_iter().find(|head| head.section() == kind)
    }

    /// Logits that it gives for an input of `tokens` tokens: `[tokens][outputs]` or `[outputs]`.
    /// `None` if the model does not have it.
    pub fn logits_len(self, model: &Model<'_>, tokens: usize) -> Option<usize> {
        let rows = match self.reads() {
            Reads::Tokens => tokens,
            Reads::Pooler => 1,
        };
        model.section(self.section()).map(|section| rows * section.rows)
    }

    /// [`Head::logits_len`], or the error that the head is missing.
    pub(crate) fn require(self, model: &Model<'_>, tokens: usize) -> Result<usize, RunError> {
        self.logits_len(model, tokens).ok_or(RunError::MissingHead(self.name()))
    }
}

pub(super) fn require_pooler(model: &Model<'_>) -> Result<(), RunError> {
    model.section(SectionKind::Pooler).map(|_| ()).ok_or(RunError::MissingHead(POOLER))
}

pub(crate) fn require_masked_lm(model: &Model<'_>) -> Result<(), RunError> {
    let transform = model.section(SectionKind::MaskedLmTransform);
    transform.map(|_| ()).ok_or(RunError::MissingHead(MASKED_LM))
}

/// The pooler: `row = tanh(W row + b)`.
pub(super) fn pool(pass: &Pass<'_>, scratch: &mut HeadScratch<'_>) {
    let pooler = pass.model.head(SectionKind::Pooler).expect("checked");
    let y = &mut scratch.out[..pass.width()];
    pooler.forward(pass.kernels, scratch.row, 1, &mut scratch.linear, y);
    pass.kernels.activate(y, Activation::Tanh);
    scratch.row.copy_from_slice(y);
}

pub(super) fn logits(
    pass: &Pass<'_>,
    head: Head,
    x: &[F32x16],
    scratch: &mut HeadScratch<'_>,
    out: &mut [f32],
) {
    let width = pass.width();
    let matrix = pass.model.head(head.section()).expect("checked");
    match head.reads() {
        Reads::Pooler => {
            scratch.row.copy_from_slice(&x[..width]);
            pool(pass, scratch);
            let HeadScratch { row, out: buffer, linear } = scratch;
            apply(pass, matrix, row, linear, buffer, out);
        }
        Reads::Tokens => {
            let rows = scratch.out.len() / width;
            let count = out.len() / pass.tokens;
            for (x, out) in x.chunks(rows * width).zip(out.chunks_mut(rows * count)) {
                apply(pass, matrix, x, &mut scratch.linear, scratch.out, out);
            }
        }
    }
}

/// `out = x W^T + b`, with `out` `[rows][outputs]` and not padded: as many outputs at a time as
/// `buffer` has room for.
fn apply(
    pass: &Pass<'_>,
    matrix: Linear<'_>,
    x: &[F32x16],
    scratch: &mut LinearScratch<'_>,
    buffer: &mut [F32x16],
    out: &mut [f32],
) {
    let rows = x.len() / pass.width();
    let (count, step) = (out.len() / rows, buffer.len() / rows);
    for start in (0..matrix.width()).step_by(step) {
        let part = matrix.slice(start, matrix.width().min(start + step));
        let width = part.width();
        let buffer = &mut buffer[..rows * width];
        part.forward(pass.kernels, x, rows, scratch, buffer);
        for (y, out) in buffer.chunks_exact(width).zip(out.chunks_exact_mut(count)) {
            let out = &mut out[start * 16..];
            let n = out.len().min(width * 16);
            out[..n].copy_from_slice(&flat(y)[..n]);
        }
    }
}

/// `decoder(norm(activation(transform(x)))) + bias` at some positions.
pub(super) fn masked_lm(
    pass: &Pass<'_>,
    positions: &[usize],
    x: &[F32x16],
    scratch: &mut HeadScratch<'_>,
    out: &mut [f32],
) {
    let Pass { kernels, config, .. } = *pass;
    let width = pass.width();
    let head = pass.model.masked_lm().expect("checked");
    for (position, out) in positions.iter().zip(out.chunks_exact_mut(config.vocab_size)) {
        let (x, y) = (&x[position * width..][..width], &mut scratch.out[..width]);
        head.transform.forward(kernels, x, 1, &mut scratch.linear, y);
        kernels.activate(y, config.hidden_act);
        kernels.add_norm(y, &[], head.norm, config.hidden_size, config.layer_norm_eps);
        for (id, (out, bias)) in out.iter_mut().zip(head.bias).enumerate() {
            *out = kernels.dot_row(y, head.decoder.row(id, width)) + bias;
        }
    }
}
