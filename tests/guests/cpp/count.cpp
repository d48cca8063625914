// A guest in C++ with its standard library: counts the words of its input, the most frequent first.
//
//   count [N]   at most N of them (10); ends with 2 where N is no number, with 1 where there is no word
#include <algorithm>
#include <charconv>
#include <iomanip>
#include <iostream>
#include <map>
#include <memory>
#include <ranges>
#include <string>
#include <string_view>
#include <vector>

namespace {
struct Entry {
    std::string word;
    std::size_t count;
};

std::vector<Entry> count(std::istream &from) {
    std::map<std::string, std::size_t> words;
    for (std::string word; from >> word;)
        ++words[word];
    std::vector<Entry> entries;
    for (auto &[word, count] : words)
        entries.push_back({word, count});
    std::ranges::stable_sort(entries, std::greater{}, &Entry::count);
    return entries;
}
} // namespace

int main(int argc, char **argv) {
    std::size_t most = 10;
    if (argc > 1) {
        std::string_view text = argv[1];
        auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), most);
        if (error != std::errc{} || end != text.data() + text.size()) {
            std::cerr << "count: " << text << " is no number\n";
            return 2;
        }
    }
    auto entries = std::make_unique<std::vector<Entry>>(count(std::cin));
    for (auto &entry : *entries | std::views::take(most))
        std::cout << std::setw(7) << entry.count << ' ' << entry.word << '\n';
    return entries->empty() ? 1 : 0;
}
