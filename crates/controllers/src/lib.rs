//! The control loops of the controller manager.
