//! The error of a converted model: bertlet's runtime on the bytes of the file, against the f32 reference.

use bertlet::format::writer::Writer;
use bertlet::{Head, Input, Layers, Model, NotFinite, Output, Pooling, RunError, Session};
use rayon::prelude::*;
use serde::Serialize;

use crate::bert::{Bert, Linear, Matrix};
use crate::quantize::Deviation;
use crate::reference::matmul::linear;
use crate::reference::{self, Sequence};

/// The bytes of a model file in memory, aligned as the runtime requires.
#[derive(Debug)]
pub struct Image {
    bytes: Vec<u8>,
    start: usize,
}

impl Image {
    /// The bytes that `writer` would write.
    pub fn new(writer: &Writer) -> Self {
        const ALIGNMENT: usize = bertlet::format::ALIGNMENT;
        let mut bytes: Vec<u8> = Vec::with_capacity(writer.file_length() + ALIGNMENT);
        let start = bytes.as_ptr().align_offset(ALIGNMENT);
        bytes.resize(start, 0);
        writer.write(&mut bytes).expect("writing to memory cannot fail");
        Self { bytes, start }
    }
}

impl std::ops::Deref for Image {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[self.start..]
    }
}

/// Runs one input.
fn encode(
    session: &mut Session<'_>,
    sequence: &Sequence,
    outputs: &mut [Output<'_>],
) -> Result<(), RunError> {
    let types: Vec<u8> =
        sequence.types.iter().map(|&kind| kind.try_into().unwrap_or(u8::MAX)).collect();
    let input =
        Input { input_ids: &sequence.ids, token_type_ids: Some(&types), attention_mask: None };
    session.encode(&input, outputs)
}

/// Runs `run` on every input, on all threads. Results are in the order of the inputs.
fn each<T: Send>(
    model: Model<'_>,
    batch: &[Sequence],
    run: impl Fn(&mut Session<'_>, &Sequence) -> Result<T, RunError> + Sync,
) -> Result<Vec<T>, RunError> {
    batch
        .par_iter()
        .map_init(|| Session::new(model), |session, sequence| run(session, sequence))
        .collect()
}

/// All hidden states of a batch, embeddings first, in the layout of [`reference::hidden_states`].
///
/// # Errors
/// If the runtime refuses an input.
pub fn hidden_states(model: Model<'_>, batch: &[Sequence]) -> Result<Vec<Matrix>, RunError> {
    let (hidden, count) = (model.config().hidden_size, model.config().num_hidden_layers + 1);
    let states = each(model, batch, |session, sequence| {
        let mut states = vec![vec![0f32; sequence.ids.len() * hidden]; count];
        let feature = |(i, out): (usize, _)| Output::Features {
            layers: Layers::one(i as i16),
            pooling: Pooling::None,
            normalize: false,
            out,
        };
        let mut outputs: Vec<_> =
            states.iter_mut().map(Vec::as_mut_slice).enumerate().map(feature).collect();
        encode(session, sequence, &mut outputs)?;
        Ok(states)
    })?;
    let all = |i: usize| {
        let data = states.iter().flat_map(|states| &states[i]).copied().collect::<Vec<_>>();
        Matrix { rows: data.len() / hidden, cols: hidden, data }
    };
    Ok((0..count).map(all).collect())
}

/// Logits of a head for each input: one row, or one row per token.
///
/// # Errors
/// If the model has no such head, or the runtime refuses an input.
pub fn logits(model: Model<'_>, head: Head, batch: &[Sequence]) -> Result<Vec<Matrix>, RunError> {
    let cols = model.section(head.section()).map_or(0, |section| section.rows);
    each(model, batch, |session, sequence| {
        let count = head
            .logits_len(&model, sequence.ids.len())
            .ok_or(RunError::MissingHead(head.name()))?;
        let mut data = vec![0f32; count];
        encode(session, sequence, &mut [Output::Logits { head, out: &mut data }])?;
        Ok(Matrix { rows: count / cols, cols, data })
    })
}

/// The pooler's output for each input.
fn pooled(model: Model<'_>, batch: &[Sequence]) -> Result<Vec<Matrix>, RunError> {
    let cols = model.config().hidden_size;
    each(model, batch, |session, sequence| {
        let mut data = vec![0f32; cols];
        let output = Output::Features {
            layers: Layers::LAST,
            pooling: Pooling::Pooler,
            normalize: false,
            out: &mut data,
        };
        encode(session, sequence, &mut [output])?;
        Ok(Matrix { rows: 1, cols, data })
    })
}

/// The outputs of the f32 model that a converted model is compared with.
pub struct Baseline {
    batch: Vec<Sequence>,
    states: Vec<Matrix>,
    /// `None` is the pooler.
    outputs: Vec<(Option<Head>, Matrix)>,
}

/// The error of the output of a head or the pooler.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OutputError {
    /// Name of the section.
    pub name: String,
    /// Root mean square of the error over that of the output.
    pub relative_rms: f64,
}

/// The errors of a converted model.
#[derive(Clone, Debug, PartialEq)]
pub struct Quality {
    /// Errors of the hidden states and of the pooled last state.
    pub states: Deviation,
    /// Errors of the pooler and the heads, without the masked LM, whose logits are too many.
    pub outputs: Vec<OutputError>,
}

impl Baseline {
    /// Runs the f32 model on `batch`.
    ///
    /// # Errors
    /// If a state or an output is not finite, where that is: weights of such a size are no model.
    pub fn new(bert: &Bert, batch: Vec<Sequence>) -> Result<Self, NotFinite> {
        let states = reference::hidden_states(bert, &batch);
        let finite = |x: &Matrix| x.data.iter().all(|x| x.is_finite());
        if let Some(state) = states.iter().position(|state| !finite(state)) {
            return Err(NotFinite::HiddenState(state));
        }
        let last = &states[states.len() - 1];
        let heads = &bert.heads;
        let pooled = reference::pooler(bert, last, &batch);
        let classifier = heads.sequence_classifier.as_ref().map(|(head, _)| head);
        let apply = |x: Option<&Matrix>, head: Option<&Linear>| {
            let (x, head) = x.zip(head)?;
            Some(linear(x, &head.weight, &head.bias))
        };
        let outputs = [
            (Some(Head::TokenClassifier), apply(Some(last), heads.token_classifier.as_ref())),
            (Some(Head::SequenceClassifier), apply(pooled.as_ref(), classifier)),
            (Some(Head::NextSentence), apply(pooled.as_ref(), heads.next_sentence.as_ref())),
            (Some(Head::QuestionAnswering), apply(Some(last), heads.question_answering.as_ref())),
            (None, pooled),
        ];
        let outputs: Vec<_> =
            outputs.into_iter().filter_map(|(head, out)| Some((head, out?))).collect();
        match outputs.iter().find(|(_, out)| !finite(out)) {
            Some((head, _)) => Err(NotFinite::Head(head.map_or("pooler", Head::name))),
            None => Ok(Self { batch, states, outputs }),
        }
    }

    /// The inputs.
    pub fn batch(&self) -> &[Sequence] {
        &self.batch
    }

    /// Runs a converted model on the same inputs and compares.
    ///
    /// # Errors
    /// If the runtime refuses an input.
    pub fn compare(&self, model: Model<'_>) -> Result<Quality, RunError> {
        let states = hidden_states(model, &self.batch)?;
        let outputs = self.outputs.iter().map(|(head, reference)| {
            let (name, rows) = match head {
                Some(head) => (format!("{head:?}"), logits(model, *head, &self.batch)?),
                None => ("Pooler".into(), pooled(model, &self.batch)?),
            };
            let actual = rows.iter().flat_map(|rows| &rows.data);
            Ok(OutputError { name, relative_rms: relative_rms(&reference.data, actual) })
        });
        let outputs = outputs.collect::<Result<_, RunError>>()?;
        Ok(Quality { states: Deviation::compare(&self.states, &states, &self.batch), outputs })
    }
}

fn relative_rms<'a>(reference: &[f32], actual: impl Iterator<Item = &'a f32>) -> f64 {
    let (mut noise, mut signal) = (0f64, 0f64);
    for (&r, &a) in reference.iter().zip(actual) {
        let (r, a) = (f64::from(r), f64::from(a));
        noise += (r - a) * (r - a);
        signal += r * r;
    }
    libm::sqrt(noise / signal)
}
