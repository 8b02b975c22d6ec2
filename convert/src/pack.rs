//! Lays out a model as the sections of a file.

use bertlet::Pooling;
use bertlet::format::writer::{Defaults, QuantizedMatrix, Writer};
use bertlet::format::{Encoding, ScoreActivation, SectionKind, round16};
use half::f16;

use crate::bert::{Bert, LayerNorm, Linear, ProblemType, TaskHeads};
use crate::quantize::HadamardRotation;
use crate::stored::{Int8Linear, StoredBert, StoredLinear, WordTable};

/// The contents of a file apart from the weights.
#[derive(Clone, Debug)]
pub struct Extras {
    /// Default pooling.
    pub pooling: Pooling,
    /// Whether pooled vectors are L2-normalised by default.
    pub normalize: bool,
    /// Labels of the classifier.
    pub labels: Vec<String>,
    /// Tokens that texts are cut to; 0 for the positions.
    pub max_tokens: usize,
    /// How the sequence classifier's logits become scores.
    pub score_activation: ScoreActivation,
    /// The tokenizer section. Empty for none.
    pub tokenizer: Vec<u8>,
    /// The provenance section, JSON. Empty for none.
    pub provenance: String,
    /// The self-test section. Empty for none.
    pub self_test: Vec<u8>,
}

impl Default for Extras {
    fn default() -> Self {
        Self {
            pooling: Pooling::None,
            normalize: false,
            labels: Vec::new(),
            max_tokens: 0,
            score_activation: ScoreActivation::OfProblem,
            tokenizer: Vec::new(),
            provenance: String::new(),
            self_test: Vec::new(),
        }
    }
}

/// A file in f16 or f32, with attention in f32.
pub fn float(bert: &Bert, encoding: Encoding, extras: &Extras) -> Writer {
    pack(&StoredBert::float(bert), encoding, extras)
}

/// A file in int8, with attention in integers. What is not int8 is f16.
pub fn int8(bert: &StoredBert, extras: &Extras) -> Writer {
    pack(bert, Encoding::F16, extras)
}

/// A file whose matrices and tables that are not int8 are of the encoding `float`.
pub(crate) fn pack(bert: &StoredBert, float: Encoding, extras: &Extras) -> Writer {
    let config = bert.config;
    let classifier = bert.heads.sequence_classifier.as_ref();
    let problem_type =
        classifier.map_or(ProblemType::SingleLabel, |(_, problem_type)| *problem_type);
    let mut packer = Packer {
        heads: config.num_attention_heads,
        head_size: config.head_size(),
        float,
        writer: Writer::new(
            config,
            Defaults {
                pooling: extras.pooling,
                normalize: extras.normalize,
                problem_type,
                labels: extras.labels.len(),
                max_tokens: extras.max_tokens,
                score_activation: extras.score_activation,
            },
        ),
    };
    match &bert.words {
        WordTable::Float(words) => {
            packer.writer.float_table(SectionKind::WordEmbeddings, float, &words.data);
        }
        WordTable::Int8 { cols, group, values, scales } => {
            let scales = regroup(scales, *cols, *group);
            packer.writer.int8_table(SectionKind::WordEmbeddings, values, &scales);
        }
    }
    packer.writer.float_table(SectionKind::PositionEmbeddings, float, &bert.positions.data);
    packer.writer.float_table(SectionKind::TokenTypeEmbeddings, float, &bert.token_types.data);
    packer.norm(SectionKind::EmbeddingsNorm, 0, &bert.embedding_norm);
    for (i, layer) in bert.layers.iter().enumerate() {
        packer.stored(SectionKind::QueryKeyValue, i, &layer.qkv);
        packer.stored(SectionKind::AttentionOutput, i, &layer.attention_output);
        packer.norm(SectionKind::AttentionNorm, i, &layer.attention_norm);
        packer.stored(SectionKind::Intermediate, i, &layer.intermediate);
        packer.stored(SectionKind::Output, i, &layer.output);
        packer.norm(SectionKind::OutputNorm, i, &layer.output_norm);
    }
    if let Some(pooler) = &bert.pooler {
        packer.linear(SectionKind::Pooler, 0, pooler);
    }
    packer.task_heads(&bert.heads);
    let mut writer = packer.writer;
    for (kind, bytes) in [
        (SectionKind::Tokenizer, extras.tokenizer.clone()),
        (SectionKind::Labels, Vec::new()),
        (SectionKind::Provenance, extras.provenance.clone().into_bytes()),
        (SectionKind::SelfTest, extras.self_test.clone()),
    ] {
        if kind == SectionKind::Labels && !extras.labels.is_empty() {
            writer.labels(&extras.labels);
        } else if !bytes.is_empty() {
            writer.bytes(kind, bytes);
        }
    }
    writer
}

/// The scales of the word embeddings as the file stores them: f16, one per 64 columns.
fn regroup(scales: &[f32], cols: usize, group: usize) -> Vec<f16> {
    const WANTED: usize = bertlet::kernels::TABLE_GROUP;
    assert!(group == WANTED || group == cols, "scales for {group} of {cols} columns");
    let a_row = cols.div_ceil(group);
    let wanted = |row: &[f32]| {
        (0..cols.div_ceil(WANTED)).map(|i| f16::from_f32(row[i * WANTED / group])).collect()
    };
    scales.chunks_exact(a_row).flat_map::<Vec<f16>, _>(wanted).collect()
}

/// Writes the parts of a model, with heads padded to a multiple of 16.
struct Packer {
    heads: usize,
    head_size: usize,
    /// Encoding of the matrices and tables that are not int8.
    float: Encoding,
    writer: Writer,
}

impl Packer {
    fn norm(&mut self, kind: SectionKind, layer: usize, norm: &LayerNorm) {
        self.writer.norm(kind, layer, &norm.weight, &norm.bias);
    }

    fn linear(&mut self, kind: SectionKind, layer: usize, linear: &Linear) {
        self.writer.float_matrix(kind, layer, self.float, &linear.weight.data, &linear.bias);
    }

    fn stored(&mut self, kind: SectionKind, layer: usize, linear: &StoredLinear) {
        match linear {
            StoredLinear::Float(linear) => {
                let weight = self.pad(kind, linear.weight.cols, &linear.weight.data);
                let bias = self.pad_rows(kind, 1, &linear.bias);
                self.writer.float_matrix(kind, layer, self.float, &weight, &bias);
            }
            StoredLinear::Int8(linear) => self.int8(kind, layer, linear),
        }
    }

    fn int8(&mut self, kind: SectionKind, layer: usize, linear: &Int8Linear) {
        let values = self.pad(kind, linear.weight.cols, &linear.weight.values);
        // The runtime's transform is not orthonormal: it multiplies by the square root of the block.
        let norm = (linear.rotation.block as f32).sqrt();
        let scale: Vec<f32> = linear.weight.scales.iter().map(|s| s / norm).collect();
        let scale = self.pad_rows(kind, 1, &scale);
        let bias = self.pad_rows(kind, 1, &linear.bias);
        let rotation = self.rotation(kind, linear.rotation);
        let rows = QuantizedMatrix { values: &values, scale: &scale, bias: &bias, rotation };
        self.writer.int8_matrix(kind, layer, rows);
    }

    /// The rotation with a stride of padded heads.
    fn rotation(
        &self,
        kind: SectionKind,
        rotation: HadamardRotation,
    ) -> bertlet::kernels::Rotation {
        let across_heads =
            kind == SectionKind::AttentionOutput && rotation.stride == self.head_size;
        let stride = if across_heads { round16(self.head_size) } else { rotation.stride };
        bertlet::kernels::Rotation { block: rotation.block, stride }
    }

    /// Pads the heads among the outputs or inputs of a matrix.
    fn pad<T: Copy + Default>(&self, kind: SectionKind, cols: usize, values: &[T]) -> Vec<T> {
        match kind {
            SectionKind::QueryKeyValue => self.pad_rows(kind, cols, values),
            SectionKind::AttentionOutput => {
                let mut padded = Vec::new();
                for head in values.chunks_exact(self.head_size) {
                    padded.extend(head);
                    padded.resize(padded.len() + self.head_padding(), T::default());
                }
                padded
            }
            _ => values.to_vec(),
        }
    }

    /// Pads the heads among the outputs of a matrix with `cols` values per row.
    fn pad_rows<T: Copy + Default>(&self, kind: SectionKind, cols: usize, values: &[T]) -> Vec<T> {
        if kind != SectionKind::QueryKeyValue {
            return values.to_vec();
        }
        let mut padded = Vec::new();
        for head in values.chunks_exact(self.head_size * cols) {
            padded.extend(head);
            padded.resize(padded.len() + self.head_padding() * cols, T::default());
        }
        assert_eq!(padded.len(), 3 * self.heads * round16(self.head_size) * cols);
        padded
    }

    fn head_padding(&self) -> usize {
        round16(self.head_size) - self.head_size
    }

    fn task_heads(&mut self, heads: &TaskHeads) {
        if let Some(head) = &heads.token_classifier {
            self.linear(SectionKind::TokenClassifier, 0, head);
        }
        if let Some((head, _)) = &heads.sequence_classifier {
            self.linear(SectionKind::SequenceClassifier, 0, head);
        }
        if let Some(head) = &heads.masked_lm {
            self.linear(SectionKind::MaskedLmTransform, 0, &head.transform);
            self.norm(SectionKind::MaskedLmNorm, 0, &head.norm);
            if let Some(decoder) = &head.decoder {
                self.writer.float_table(SectionKind::MaskedLmDecoder, self.float, &decoder.data);
            }
            self.writer.vector(SectionKind::MaskedLmBias, &head.bias);
        }
        if let Some(head) = &heads.next_sentence {
            self.linear(SectionKind::NextSentence, 0, head);
        }
        if let Some(head) = &heads.question_answering {
            self.linear(SectionKind::QuestionAnswering, 0, head);
        }
    }
}
