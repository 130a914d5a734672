//! Image configs.
