//! Runs a model on one input: embeddings, then the layers.
//!
//! | file | what it holds |
//! |---|---|
//! | `forward.rs` | the forward pass, as the paper has it |
//! | `parallel.rs` | the division of its rows among threads, and into chunks that fit the cache |
//! | `scratch.rs` | the caller's buffer, divided into arrays |
//!
//! The encoder tells an observer of its hidden states. What is made of them, poolings and heads,
//! is in `crate::outputs`; [`Encoder::encode`] connects the two.

mod forward;
mod parallel;
mod scratch;

use forward::ForwardPass;
use parallel::Threads;
use scratch::{Scratch, Sizes, Worker};

use crate::error::{RunError, TooSmall};
use crate::format::{Config, Model};
use crate::kernels::{BLOCK, F32x16, Isa, Kernels, Keys};
use crate::observer::Observer;
use crate::threads::{Executor, Serial};

/// What [`RunError::TooSmall`] calls the scratch.
pub(crate) const SCRATCH: &str = "the encoder's scratch bytes (Config::scratch_len)";

/// One sequence of tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Input<'i> {
    /// `[tokens]`: ids in the model's vocabulary.
    pub input_ids: &'i [u32],
    /// `[tokens]`: token types (segments). `None` stands for all 0.
    pub token_type_ids: Option<&'i [u8]>,
    /// `[tokens]`: 0 for a masked token, which no token attends to and pooling leaves out. `None`
    /// stands for no masked token. The hidden states of masked tokens are computed all the same.
    pub attention_mask: Option<&'i [u8]>,
}

impl<'i> Input<'i> {
    /// Tokens of type 0, none masked.
    pub const fn new(input_ids: &'i [u32]) -> Self {
        Self { input_ids, token_type_ids: None, attention_mask: None }
    }

    /// Checks that a model of this shape can run on the input, in an encoder for `limit` tokens.
    pub(crate) fn check(&self, config: &Config, limit: usize) -> Result<(), RunError> {
        let need = self.input_ids.len();
        if need == 0 {
            return Err(RunError::NoTokens);
        }
        if need > limit {
            return Err(RunError::TooManyTokens { have: need, limit });
        }
        for (what, given) in
            [("token_type_ids", self.token_type_ids), ("attention_mask", self.attention_mask)]
        {
            let have = given.map_or(need, <[u8]>::len);
            if have != need {
                return Err(RunError::Lengths { what, have, need });
            }
        }
        let vocab = config.vocab_size;
        for (position, id) in self.input_ids.iter().copied().enumerate() {
            if id as usize >= vocab {
                return Err(RunError::UnknownToken { position, id, vocab });
            }
        }
        let types = config.type_vocab_size;
        // Empty where they are not given: valgrind reports a look at the length of `None`.
        let token_types = self.token_type_ids.unwrap_or_default();
        for (position, token_type) in token_types.iter().copied().enumerate() {
            if usize::from(token_type) >= types {
                return Err(RunError::UnknownTokenType { position, token_type, types });
            }
        }
        let mask = self.attention_mask.unwrap_or_default();
        if !mask.is_empty() && mask.iter().all(|m| *m == 0) {
            return Err(RunError::AllMasked);
        }
        Ok(())
    }
}

impl Config {
    /// Bytes of scratch that an encoder needs for inputs of up to `tokens` tokens on one thread.
    /// `const`, so that firmware can reserve a `static`.
    ///
    /// The formula uses these sizes:
    /// * `H`, `I`: hidden size and intermediate size, rounded up to 16
    /// * `P`: heads times the head size rounded up to 16
    /// * `S`: heads, rounded up to an odd number; `Q`: `S` times the head size rounded up to 16
    /// * `W`: the largest of `3 P`, `I` and `H`
    /// * `T` tokens in `B` blocks of 16; chunks of `C = min(48, 16 B)` tokens
    ///
    /// The arrays have these bytes, each rounded up to 64:
    /// * hidden state and sum of hidden states: `8 T H`
    /// * queries, keys and values: in int8 `16 B P + 48 B Q + 256 B S`, in f32 about `192 B Q`
    /// * per thread: `4 C (W + P + H) + C W + 16 W`, and 2,112 per pair of blocks
    pub const fn scratch_len(&self, tokens: usize) -> usize {
        Sizes::new(self, tokens).scratch_len(1)
    }

    /// [`Config::scratch_len`] for `threads` threads.
    pub const fn scratch_len_threads(&self, tokens: usize, threads: usize) -> usize {
        Sizes::new(self, tokens).scratch_len(threads)
    }
}

/// Runs a model in the caller's scratch buffer. Allocates nothing.
///
/// ```no_run
/// use bertlet::{Encoder, Input, Isa, Layers, Model, Output, Pooling, RunError};
///
/// # fn embed(bytes: &[u8], scratch: &mut [u8]) -> Result<(), Box<dyn std::error::Error>> {
/// let model = Model::from_bytes(bytes)?;
/// let mut encoder = Encoder::new(model, Isa::detect(), scratch, 128)?;
/// let mut vector = [0.0; 384];
/// encoder.encode(
///     &Input::new(&[101, 7592, 102]),
///     &mut [Output::Features {
///         layers: Layers::LAST,
///         pooling: Pooling::Mean,
///         normalize: true,
///         out: &mut vector,
///     }],
/// )?;
/// # Ok(())
/// # }
/// ```
pub struct Encoder<'a, 's> {
    model: Model<'a>,
    kernels: &'static Kernels,
    executor: &'s dyn Executor,
    /// The executor's threads when the scratch was measured, at least one.
    threads: usize,
    scratch: &'s mut [u8],
    tokens: usize,
}

impl<'a, 's> Encoder<'a, 's> {
    /// An encoder for inputs of up to `tokens` tokens, on the calling thread.
    ///
    /// # Errors
    /// [`RunError::TooSmall`] if `scratch` is shorter than [`Config::scratch_len`];
    /// [`RunError::TooManyTokens`] if the model has fewer positions than `tokens`.
    pub fn new(
        model: Model<'a>,
        isa: Isa,
        scratch: &'s mut [u8],
        tokens: usize,
    ) -> Result<Self, RunError> {
        Self::with_executor(model, isa, scratch, tokens, &Serial)
    }

    /// An encoder on an executor's threads, which needs [`Config::scratch_len_threads`].
    ///
    /// # Errors
    /// Those of [`Encoder::new`].
    pub fn with_executor(
        model: Model<'a>,
        isa: Isa,
        scratch: &'s mut [u8],
        tokens: usize,
        executor: &'s dyn Executor,
    ) -> Result<Self, RunError> {
        let limit = model.config().max_position_embeddings;
        if tokens > limit {
            return Err(RunError::TooManyTokens { have: tokens, limit });
        }
        let threads = executor.threads().max(1);
        let need = model.config().scratch_len_threads(tokens, threads);
        let have = scratch.len();
        if have < need {
            return Err(TooSmall { what: SCRATCH, need, have }.into());
        }
        Ok(Self { model, kernels: isa.kernels(), executor, threads, scratch, tokens })
    }

    /// The model that it runs.
    pub fn model(&self) -> Model<'a> {
        self.model
    }

    /// Upper bound on the tokens of an input.
    pub fn max_tokens(&self) -> usize {
        self.tokens
    }

    pub(crate) fn kernels(&self) -> &'static Kernels {
        self.kernels
    }

    /// Runs the first `layers` layers on an input that [`Input::check`] accepts.
    pub(crate) fn forward(
        &mut self,
        input: &Input<'_>,
        layers: usize,
        observer: &mut impl Observer,
    ) {
        let config = self.model.config();
        let sizes = &Sizes::new(config, input.input_ids.len());
        let mut scratch = Scratch::new(sizes, self.threads, self.scratch)
            .expect("a shorter input needs no more scratch");
        let limit = std::mem::take(&mut scratch.limit);
        let pass = ForwardPass {
            model: &self.model,
            config,
            kernels: self.kernels,
            threads: Threads { executor: self.executor, count: self.threads, sizes },
            keys: unmasked_keys(input, limit),
        };
        pass.run(input, layers, &mut scratch, observer);
        let Scratch { x, sum, workers, .. } = scratch;
        observer.finish(x, sum, Worker::new(sizes, workers).into_heads(sizes));
    }
}

/// Marks in `limit` which keys take part in the attention.
fn unmasked_keys<'k>(input: &Input<'_>, limit: &'k mut [F32x16]) -> Keys<'k> {
    let count = input.input_ids.len();
    for (b, limit) in limit.iter_mut().enumerate() {
        for (lane, limit) in limit.0.iter_mut().enumerate() {
            let t = b * BLOCK + lane;
            let unmasked = t < count && input.attention_mask.is_none_or(|mask| mask[t] != 0);
            *limit = if unmasked { f32::MAX } else { f32::MIN };
        }
    }
    Keys { count, limit }
}
