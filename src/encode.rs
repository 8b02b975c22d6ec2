//! One forward pass with everything that is asked of it: the encoder and the outputs, connected.

use crate::encoder::{Encoder, Input};
use crate::error::RunError;
use crate::outputs::{self, Fault, Listener, Output};

impl Encoder<'_, '_> {
    /// Runs the model on one input, as far as `outputs` need, and fills them.
    ///
    /// # Errors
    /// Any [`RunError`]. Then no output has been written, except with
    /// [`RunError::NotFinite`]: what the outputs hold then is of no use.
    pub fn encode(
        &mut self,
        input: &Input<'_>,
        outputs: &mut [Output<'_>],
    ) -> Result<(), RunError> {
        let model = self.model();
        input.check(model.config(), self.max_tokens())?;
        let tokens = input.input_ids.len();
        let layers = outputs::check(&model, tokens, outputs)?;
        let mut listener =
            Listener::new(&model, self.kernels(), tokens, input.attention_mask, outputs);
        self.forward(input, layers, &mut listener);
        match listener.fault() {
            None => Ok(()),
            Some(Fault::State) => Err(outputs::locate(self, input, layers)),
            Some(Fault::Output(place)) => Err(RunError::NotFinite(place)),
        }
    }
}
