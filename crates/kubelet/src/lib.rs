//! Runs the pods bound to this node.
