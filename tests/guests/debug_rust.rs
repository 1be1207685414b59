//! An enum, an option, a slice, a string and shadowing as Rust describes them; tests/unit/test_source_rust.py names the
//! values. Without the standard library, not even `core`: no target has to be installed to build it. It is not in the
//! table of build.py, which knows no Rust; it was built in this directory with rustc 1.95.0 and ziglang 0.17.0 by
//!
//!     RUSTC_BOOTSTRAP=1 rustc --target wasm32-unknown-unknown -g --emit obj --crate-type lib -C panic=abort \
//!         --remap-path-prefix $PWD=. debug_rust.rs -o debug_rust.o
//!     python -m ziglang wasm-ld --no-entry --export=run --export=__stack_pointer --allow-undefined debug_rust.o \
//!         -o debug_rust.wasm
#![feature(no_core, lang_items, intrinsics, rustc_attrs, auto_traits)]
#![no_core]
#![no_std]
#![crate_type = "lib"]
#![allow(internal_features, dead_code, improper_ctypes)]

#[lang = "pointee_sized"]
pub trait PointeeSized {}
#[lang = "meta_sized"]
pub trait MetaSized: PointeeSized {}
#[lang = "sized"]
pub trait Sized: MetaSized {}
#[lang = "copy"]
pub trait Copy {}
#[lang = "freeze"]
pub unsafe auto trait Freeze {}
#[lang = "legacy_receiver"]
pub trait Receiver {}
#[lang = "drop_in_place"]
unsafe fn drop_in_place<T: PointeeSized>(_: *mut T) {}
impl Copy for i32 {}
impl<'a, T: PointeeSized> Copy for &'a T {}

pub enum Shape {
    Circle(i32),
    Named { name: &'static str, id: u8 },
    Empty,
}

pub enum Maybe<T> {
    Nothing,
    Just(T),
}

extern "C" {
    fn stop(where_: i32, shape: &Shape, maybe: &Maybe<&'static i32>, bytes: &[u8; 3]);
}

pub mod inner {
    use super::{stop, Maybe, Shape};

    #[no_mangle]
    pub extern "C" fn run(seed: i32) -> i32 {
        let shape = Shape::Named { name: "rusty", id: 7 };
        let maybe: Maybe<&'static i32> = Maybe::Nothing;
        let bytes = [1u8, 2, 3];
        unsafe { stop(1, &shape, &maybe, &bytes) };
        let shape = Shape::Circle(seed);
        let maybe = Maybe::Just(&41);
        unsafe { stop(2, &shape, &maybe, &bytes) };
        let shape = Shape::Empty;
        unsafe { stop(3, &shape, &maybe, &bytes) };
        seed
    }
}
