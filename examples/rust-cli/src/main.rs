//! Says hello.

fn main() {
    println!("hello from Rust");
}
