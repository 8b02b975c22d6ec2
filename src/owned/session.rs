//! An encoder that owns its memory and its threads.

use std::fmt;
use std::io;

use super::ThreadPool;
use crate::encoder::{Encoder, Input};
use crate::error::RunError;
use crate::format::Model;
use crate::kernels::Isa;
use crate::outputs::Output;
use crate::threads::{Executor, Serial};

/// Runs a model in memory of its own, which grows when a longer input comes than any before, and
/// on threads of its own. Otherwise nothing is allocated.
///
/// ```no_run
/// use bertlet::{Input, Layers, ModelFile, Output, Pooling, Session};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let file = ModelFile::open("minilm.bertlet")?;
/// let mut session = Session::new(file.model()).with_threads(2)?;
/// let mut vector = [0.0; 384];
/// session.encode(
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
pub struct Session<'m> {
    model: Model<'m>,
    isa: Isa,
    pool: Option<ThreadPool>,
    /// The encoder finds the first multiple of 64 in it.
    scratch: Vec<u8>,
}

impl fmt::Debug for Session<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("model", &self.model)
            .field("isa", &self.isa)
            .field("threads", &self.executor().threads())
            .field("scratch", &self.scratch.len())
            .finish()
    }
}

impl<'m> Session<'m> {
    /// A session on the calling thread, with the fastest instruction set that the CPU has.
    pub fn new(model: Model<'m>) -> Self {
        Self { model, isa: Isa::detect(), pool: None, scratch: Vec::new() }
    }

    /// With another instruction set.
    pub fn with_isa(mut self, isa: Isa) -> Self {
        self.isa = isa;
        self
    }

    /// With so many threads, the calling one included.
    ///
    /// # Errors
    /// If the operating system has no more threads.
    pub fn with_threads(mut self, threads: usize) -> io::Result<Self> {
        self.pool = if threads > 1 { Some(ThreadPool::new(threads)?) } else { None };
        Ok(self)
    }

    /// The model.
    pub fn model(&self) -> Model<'m> {
        self.model
    }

    /// The instruction set.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// What the work runs on.
    pub fn executor(&self) -> &dyn Executor {
        match &self.pool {
            Some(pool) => pool,
            None => &Serial,
        }
    }

    /// Makes room for inputs of up to `tokens` tokens, so that [`Session::encode`] need not.
    ///
    /// # Errors
    /// [`RunError::TooManyTokens`] if the model has fewer positions, [`RunError::Scratch`] if there
    /// is not enough memory.
    pub fn reserve(&mut self, tokens: usize) -> Result<(), RunError> {
        let config = self.model.config();
        let limit = config.max_position_embeddings;
        if tokens > limit {
            return Err(RunError::TooManyTokens { have: tokens, limit });
        }
        let need = config.scratch_len_threads(tokens, self.executor().threads());
        if self.scratch.len() < need {
            // Nothing in it is of use any more.
            self.scratch = Vec::new();
            if self.scratch.try_reserve_exact(need).is_err() {
                return Err(RunError::Scratch { need, have: 0 });
            }
            self.scratch.resize(need, 0);
        }
        Ok(())
    }

    /// An encoder for inputs of up to `tokens` tokens, in this session's memory.
    ///
    /// # Errors
    /// As [`Session::reserve`].
    pub fn encoder(&mut self, tokens: usize) -> Result<Encoder<'m, '_>, RunError> {
        self.reserve(tokens)?;
        let executor: &dyn Executor = match &self.pool {
            Some(pool) => pool,
            None => &Serial,
        };
        Encoder::with_executor(self.model, self.isa, &mut self.scratch, tokens, executor)
    }

    /// Runs the model on one input; see [`Encoder::encode`].
    ///
    /// # Errors
    /// Any [`RunError`]; then no output has been written.
    pub fn encode(
        &mut self,
        input: &Input<'_>,
        outputs: &mut [Output<'_>],
    ) -> Result<(), RunError> {
        self.encoder(input.input_ids.len())?.encode(input, outputs)
    }
}
