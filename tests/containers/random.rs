//! Numbers without a pattern, the same for the same seed.

use std::time::{SystemTime, UNIX_EPOCH};

/// xorshift64 (Marsaglia 2003).
pub struct Random {
    pub seed: u64,
    state: u64,
}

impl Random {
    /// From an environment variable, else from the clock.
    pub fn from(variable: &str) -> Self {
        let clock = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
        Self::with_seed(number(variable).unwrap_or_else(clock))
    }

    pub fn with_seed(seed: u64) -> Self {
        let seed = seed.max(1);
        Self { seed, state: seed }
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state % limit
    }

    /// One of these.
    pub fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u64) as usize]
    }
}

/// The number in an environment variable.
pub fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is no number")))
}
