//! `Quantity`: exact fixed-point numbers with a suffix (`250m`, `1536Mi`, `1e3`), as resources are counted in.
//!
//! Upstream: apimachinery pkg/api/resource. What is finer than a billionth is rounded up, away from zero.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use crate::{Number, Value};

/// A number `mantissa * 10^scale` and the notation it was written in. Compared by value alone.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quantity {
    /// Without trailing decimal zeros.
    mantissa: i128,
    /// Not below -9.
    scale: i32,
    format: Format,
}

/// The notation a quantity is displayed in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// `1e3`
    DecimalExponent,
    /// `1Ki`
    BinarySi,
    /// `1k`
    #[default]
    DecimalSi,
}

/// Why a text is no quantity; the sentences are upstream's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    #[error("unable to parse numeric part of quantity")]
    Number,
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

const NANO: i32 = -9;
const DECIMAL: [(&str, i32); 10] =
    [("n", -9), ("u", -6), ("m", -3), ("", 0), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15), ("E", 18)];
const BINARY: [(&str, u32); 6] = [("Ki", 10), ("Mi", 20), ("Gi", 30), ("Ti", 40), ("Pi", 50), ("Ei", 60)];

impl Quantity {
    /// `value` units, displayed in `format`.
    pub fn new(value: i64, format: Format) -> Quantity {
        Quantity { mantissa: value.into(), scale: 0, format }.normalized()
    }

    /// `value` thousandths, displayed as decimal SI.
    pub fn from_milli(value: i64) -> Quantity {
        Quantity { mantissa: value.into(), scale: -3, format: Format::DecimalSi }.normalized()
    }

    /// Reads a field's value: a string, or a bare JSON number. `None` for other values.
    pub fn from_value(value: &Value) -> Option<Result<Quantity, QuantityError>> {
        match value {
            Value::String(text) => Some(text.trim().parse()),
            Value::Number(Number::Int(n)) => Some(Ok(Quantity::new(*n, Format::DecimalSi))),
            Value::Number(Number::Float(_)) => Some(value.to_string().parse()),
            _ => None,
        }
    }

    pub fn format(self) -> Format {
        self.format
    }

    /// Whole units, rounded away from zero; saturates at 64 bits.
    pub fn value(self) -> i64 {
        self.scaled(0)
    }

    /// Thousandths, rounded away from zero; saturates at 64 bits.
    pub fn milli_value(self) -> i64 {
        self.scaled(-3)
    }

    /// The exact number of whole units, if there is one of 64 bits.
    pub fn as_i64(self) -> Option<i64> {
        let exact = if self.scale < 0 { None } else { shift(self.mantissa, self.scale) };
        exact.and_then(|n| i64::try_from(n).ok())
    }

    pub fn as_f64(self) -> f64 {
        self.mantissa as f64 * 10f64.powi(self.scale)
    }

    pub fn is_zero(self) -> bool {
        self.mantissa == 0
    }

    /// -1, 0 or 1.
    pub fn sign(self) -> i32 {
        self.mantissa.signum() as i32
    }

    fn scaled(self, scale: i32) -> i64 {
        let by = self.scale - scale;
        let n = if by >= 0 {
            shift(self.mantissa, by)
        } else {
            let divisor = 10i128.pow(by.unsigned_abs());
            let (quotient, rest) = (self.mantissa / divisor, self.mantissa % divisor);
            Some(quotient + rest.signum())
        };
        let bound = if self.mantissa < 0 { i64::MIN } else { i64::MAX };
        n.and_then(|n| i64::try_from(n).ok()).unwrap_or(bound)
    }

    fn normalized(mut self) -> Quantity {
        if self.mantissa == 0 {
            self.scale = 0;
        }
        while self.mantissa != 0 && self.mantissa % 10 == 0 {
            self.mantissa /= 10;
            self.scale += 1;
        }
        self
    }

    /// Both mantissas at the smaller scale; `None` beyond 128 bits.
    fn aligned(self, other: Quantity) -> Option<(i128, i128, i32)> {
        let scale = self.scale.min(other.scale);
        Some((shift(self.mantissa, self.scale - scale)?, shift(other.mantissa, other.scale - scale)?, scale))
    }

    fn combined(self, other: Quantity, with: impl Fn(i128, i128) -> Option<i128>) -> Quantity {
        let format = if self.is_zero() { other.format } else { self.format };
        let sum = self.aligned(other).and_then(|(a, b, scale)| Some((with(a, b)?, scale)));
        // Beyond 128 bits one of the two is lost in the other's last digit.
        let (mantissa, scale) = sum.unwrap_or_else(|| {
            let larger = if self.as_f64().abs() >= other.as_f64().abs() {
                self
            } else {
                Quantity { mantissa: with(0, other.mantissa).unwrap_or(other.mantissa), ..other }
            };
            (larger.mantissa, larger.scale)
        });
        Quantity { mantissa, scale, format }.normalized()
    }
}

impl std::ops::Add for Quantity {
    type Output = Quantity;

    /// The sum, in the notation of the left side unless that is zero.
    fn add(self, other: Quantity) -> Quantity {
        self.combined(other, i128::checked_add)
    }
}

impl std::ops::Sub for Quantity {
    type Output = Quantity;

    fn sub(self, other: Quantity) -> Quantity {
        self.combined(other, i128::checked_sub)
    }
}

impl std::ops::AddAssign for Quantity {
    fn add_assign(&mut self, other: Quantity) {
        *self = *self + other;
    }
}

impl std::ops::SubAssign for Quantity {
    fn sub_assign(&mut self, other: Quantity) {
        *self = *self - other;
    }
}

impl std::ops::Neg for Quantity {
    type Output = Quantity;

    fn neg(self) -> Quantity {
        Quantity { mantissa: -self.mantissa, ..self }
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Quantity) -> Ordering {
        match self.aligned(*other) {
            Some((a, b, _)) => a.cmp(&b),
            None => self.as_f64().total_cmp(&other.as_f64()),
        }
    }
}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Quantity) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Quantity) -> bool {
        (self.mantissa, self.scale) == (other.mantissa, other.scale)
    }
}

impl Eq for Quantity {}

impl Hash for Quantity {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.mantissa, self.scale).hash(state);
    }
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Quantity, QuantityError> {
        let parts = Parts::split(text)?;
        let (base, exponent, format) = suffix(parts.suffix).ok_or(QuantityError::Suffix)?;
        let mut mantissa: i128 = 0;
        let mut scale = 0;
        let mut inexact = false;
        for digit in parts.whole.bytes() {
            mantissa = shift(mantissa, 1).ok_or(QuantityError::Number)? + i128::from(digit - b'0');
        }
        for digit in parts.fraction.bytes() {
            match shift(mantissa, 1) {
                Some(shifted) if mantissa < 10i128.pow(30) => {
                    mantissa = shifted + i128::from(digit - b'0');
                    scale -= 1;
                }
                _ => inexact |= digit != b'0',
            }
        }
        if base == 2 {
            let factor = 1i128 << exponent;
            match mantissa.checked_mul(factor) {
                Some(product) => mantissa = product,
                None => (mantissa, scale) = (i64::MAX.into(), 0),
            }
        } else {
            scale += exponent;
        }
        if scale < NANO {
            let divisor = 10i128.checked_pow((NANO - scale).unsigned_abs());
            let (quotient, rest) = divisor.map_or((0, mantissa), |d| (mantissa / d, mantissa % d));
            mantissa = quotient + i128::from(rest != 0 || inexact);
            scale = NANO;
        }
        let mut quantity = Quantity { mantissa, scale, format }.normalized();
        if format == Format::BinarySi {
            quantity = quantity.min(Quantity::new(i64::MAX, format));
            if quantity < Quantity::new(1, format) {
                quantity.format = Format::DecimalSi;
            }
        }
        Ok(if parts.negative { -quantity } else { quantity })
    }
}

struct Parts<'a> {
    negative: bool,
    whole: &'a str,
    fraction: &'a str,
    suffix: &'a str,
}

impl<'a> Parts<'a> {
    fn split(text: &'a str) -> Result<Parts<'a>, QuantityError> {
        if text.is_empty() {
            return Err(QuantityError::Format);
        }
        let negative = text.starts_with('-');
        let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
        let digits = |text: &'a str| text.split_at(text.bytes().take_while(u8::is_ascii_digit).count());
        let (whole, rest) = digits(unsigned);
        let (fraction, suffix) = match rest.strip_prefix('.') {
            Some(rest) => digits(rest),
            None => ("", rest),
        };
        let letters = suffix.trim_start_matches(|c| "eEinumkKMGTP".contains(c));
        let exponent = letters.strip_prefix(['-', '+']).unwrap_or(letters);
        if !exponent.bytes().all(|b| b.is_ascii_digit()) {
            return Err(QuantityError::Format);
        }
        Ok(Parts { negative, whole: whole.trim_start_matches('0'), fraction, suffix })
    }
}

/// Base, exponent and notation that a suffix means.
fn suffix(text: &str) -> Option<(i32, i32, Format)> {
    if let Some((_, exponent)) = DECIMAL.iter().find(|(name, _)| *name == text) {
        return Some((10, *exponent, Format::DecimalSi));
    }
    if let Some((_, exponent)) = BINARY.iter().find(|(name, _)| *name == text) {
        return Some((2, *exponent as i32, Format::BinarySi));
    }
    let exponent: i32 = text.strip_prefix(['e', 'E'])?.parse().ok()?;
    Some((10, exponent.clamp(-1_000_000, 1_000_000), Format::DecimalExponent))
}

impl fmt::Display for Quantity {
    /// The canonical text: no fraction, the largest suffix that keeps the value exact.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_zero() {
            return f.write_str("0");
        }
        let whole = if self.scale >= 0 { shift(self.mantissa, self.scale) } else { None };
        if let (Format::BinarySi, Some(mut n)) = (self.format, whole.filter(|n| n.abs() >= 1024)) {
            let mut power = 0;
            while n % 1024 == 0 && power < BINARY.len() {
                n /= 1024;
                power += 1;
            }
            return write!(f, "{n}{}", if power == 0 { "" } else { BINARY[power - 1].0 });
        }
        let up = self.scale.rem_euclid(3);
        let exponent = self.scale - up;
        write!(f, "{}{}", self.mantissa, &"00"[..up as usize])?;
        match DECIMAL.iter().find(|(_, e)| *e == exponent) {
            Some((name, _)) if self.format != Format::DecimalExponent => f.write_str(name),
            _ if exponent == 0 => Ok(()),
            _ => write!(f, "e{exponent}"),
        }
    }
}

/// `n * 10^by`, unless that takes more than 128 bits.
fn shift(n: i128, by: i32) -> Option<i128> {
    if n == 0 {
        return Some(0);
    }
    n.checked_mul(10i128.checked_pow(by.unsigned_abs())?)
}

#[cfg(test)]
mod tests;
