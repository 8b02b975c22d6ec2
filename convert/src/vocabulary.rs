//! A smaller vocabulary: the pieces that some texts need, and all single characters.
//!
//! WordPiece takes the longest piece that fits. A text whose pieces all stay is therefore split as before, and
//! as the rows of its pieces stay as they are, it gives the same bits: hidden states, logits, and of a masked word
//! the logits of the pieces that stay. Its probabilities are among these pieces only. Any other text is split into
//! shorter pieces, down to single characters.

use std::collections::BTreeSet;
use std::path::Path;

use bertlet::tokenizer::Tokenizer;

use crate::bert::{Bert, Matrix, TaskHeads};
use crate::error::{Error, Result};
use crate::quantize::text;
use crate::report::KeptVocabulary;
use crate::source::{Checkpoint, TokenizerConfig};
use crate::stored::{StoredBert, WordTable};
use crate::texts::read_lines;
use crate::tokenizer::{self, TokenizerSection};

/// The rows of the word embeddings that stay.
pub(crate) struct Pruning {
    /// Their ids in the checkpoint, ascending. The position is the id in the file.
    ids: Vec<usize>,
    /// What the file records.
    pub about: KeptVocabulary,
}

impl Pruning {
    /// Keeps what the lines of a file need, alone and after each prompt of the checkpoint. A line is a text, two
    /// texts with a tab between them, or a piece of the vocabulary, such as `##ing`.
    ///
    /// # Errors
    /// If the file cannot be read, or the checkpoint has no vocabulary.
    pub fn new(source: &Checkpoint, whole: Option<&Tokenizer<'_>>, path: &Path) -> Result<Self> {
        let (Some(config), Some(whole)) = (&source.tokenizer, whole) else {
            return Err(Error::new(
                &source.folder,
                "--keep-vocabulary",
                "the checkpoint has no vocabulary",
            )
            .hint("add its vocab.txt or tokenizer.json, or convert without the option"));
        };
        let (name, lines, sha256) = read_lines(path)?;
        let mut ids: BTreeSet<u32> = special_ids(config).collect();
        ids.extend(config.added_tokens.iter().map(|token| token.id));
        ids.extend(
            (0..)
                .zip(&source.vocabulary)
                .filter(|(_, piece)| is_character(piece))
                .map(|(id, _)| id),
        );
        ids.extend(lines.lines().filter_map(|line| whole.id(line.trim())));
        for prompt in source.prompts.iter().map(|(_, prompt)| prompt.as_str()).chain([""]) {
            let prompted: String = lines.lines().map(|line| format!("{prompt}{line}\n")).collect();
            let sequences = text::sequences(whole, &prompted, usize::MAX)
                .map_err(|e| Error::new(path, "", format!("cannot be split into pieces: {e}")))?;
            ids.extend(sequences.into_iter().flat_map(|sequence| sequence.ids));
        }
        let ids: Vec<usize> = ids.into_iter().map(|id| id as usize).collect();
        let about = KeptVocabulary {
            text: name,
            sha256,
            pieces: ids.len(),
            of: source.config.bert.vocab_size,
        };
        Ok(Self { ids, about })
    }

    /// The tokenizer of the pieces that stay.
    pub fn section(&self, source: &Checkpoint) -> Result<TokenizerSection> {
        let mut config = source.tokenizer.clone().expect("there is a tokenizer");
        let vocabulary: Vec<String> = self
            .ids
            .iter()
            .map(|&id| source.vocabulary.get(id).cloned().unwrap_or_default())
            .collect();
        let renumber = |id: &mut u32| {
            let at = self.ids.binary_search(&(*id as usize));
            *id = at.expect("special and added tokens stay") as u32;
        };
        [&mut config.unk, &mut config.cls, &mut config.sep].into_iter().for_each(renumber);
        config.pad.iter_mut().chain(&mut config.mask).for_each(renumber);
        config.added_tokens.iter_mut().for_each(|token| renumber(&mut token.id));
        tokenizer::section_of(&vocabulary, &config, &source.folder)
    }

    /// Drops the other rows of a model.
    pub fn apply(&self, bert: &mut StoredBert) {
        match &mut bert.words {
            WordTable::Float(words) => self.keep_rows(words),
            WordTable::Int8 { cols, group, values, scales } => {
                *values = self.rows(values, *cols);
                *scales = self.rows(scales, cols.div_ceil(*group));
            }
        }
        self.heads(&mut bert.heads);
        bert.config.vocab_size = self.ids.len();
    }

    /// Drops the other rows of a checkpoint.
    pub fn apply_to_checkpoint(&self, bert: &mut Bert) {
        self.keep_rows(&mut bert.embeddings.word);
        self.heads(&mut bert.heads);
        bert.config.vocab_size = self.ids.len();
    }

    fn heads(&self, heads: &mut TaskHeads) {
        if let Some(head) = &mut heads.masked_lm {
            head.decoder.iter_mut().for_each(|decoder| self.keep_rows(decoder));
            head.bias = self.rows(&head.bias, 1);
        }
    }

    fn keep_rows(&self, matrix: &mut Matrix) {
        matrix.data = self.rows(&matrix.data, matrix.cols);
        matrix.rows = self.ids.len();
    }

    fn rows<T: Copy>(&self, values: &[T], cols: usize) -> Vec<T> {
        self.ids.iter().flat_map(|id| &values[id * cols..][..cols]).copied().collect()
    }
}

fn special_ids(config: &TokenizerConfig) -> impl Iterator<Item = u32> {
    [config.unk, config.cls, config.sep].into_iter().chain(config.pad).chain(config.mask)
}

/// Whether a piece is one character, at the start of a word or within it.
fn is_character(piece: &str) -> bool {
    piece.chars().count() == 1
        || piece.strip_prefix("##").is_some_and(|rest| rest.chars().count() == 1)
}
