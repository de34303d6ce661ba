//! Services as nftables elements.
