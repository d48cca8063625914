//! Says hello and repeats its arguments: the native twin of `hello.wat`.

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.is_empty() {
        println!("Hello from Linux");
    } else {
        println!("Hello from Linux: {}", words.join(" "));
    }
}
