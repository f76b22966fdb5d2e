/* Texts by their words, for any CPU: see encoding/words.py.
 *
 * A word is what is between white space. Each distinct word gets a number and, once, its token ids;
 * a text's ids are those of its words.
 */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    int64_t n_words, n_defined; /* words, and how many of them have ids */
    char *bytes;                /* the words, one after the other */
    int64_t *ends;              /* (words + 1) of `bytes`; the first is 0 */
    uint64_t *hashes;           /* (words) */
    int32_t *ids;               /* the ids of the words, one after the other */
    int64_t *id_ends;           /* (words + 1) of `ids`; the first is 0 */
    int32_t *slots;             /* a hash table of word numbers, -1 where free */
    int64_t n_slots, room_words, room_bytes, room_ids;
} Words;

static uint64_t mixed(uint64_t hash) {
    hash ^= hash >> 32;
    hash *= UINT64_C(0x9E3779B97F4A7C15);
    return hash ^ (hash >> 29);
}

/* Return how many things to have room for, so that adding things one by one moves them rarely. */
static int64_t larger(int64_t room, int64_t wanted) {
    return wanted > 2 * room ? wanted : 2 * room;
}

static int make_slots(Words *words, int64_t n_slots) {
    int32_t *slots = malloc((size_t)n_slots * sizeof *slots);
    if (!slots) return 0;
    memset(slots, -1, (size_t)n_slots * sizeof *slots);
    for (int64_t w = 0; w < words->n_words; w++) {
        int64_t at = (int64_t)(words->hashes[w] & (uint64_t)(n_slots - 1));
        while (slots[at] >= 0) at = (at + 1) & (n_slots - 1);
        slots[at] = (int32_t)w;
    }
    free(words->slots);
    words->slots = slots;
    words->n_slots = n_slots;
    return 1;
}

/* Make room for another word; return 0 without memory. */
static int room_for_word(Words *words, int64_t n_bytes) {
    if (words->n_words + 2 > words->room_words) {
        const int64_t room = larger(words->room_words, words->n_words + 2);
        void *hashes = realloc(words->hashes, (size_t)room * sizeof *words->hashes);
        if (hashes) words->hashes = hashes;
        void *ends = realloc(words->ends, (size_t)room * sizeof *words->ends);
        if (ends) words->ends = ends;
        void *id_ends = realloc(words->id_ends, (size_t)room * sizeof *words->id_ends);
        if (id_ends) words->id_ends = id_ends;
        if (!hashes || !ends || !id_ends) return 0;
        words->room_words = room;
    }
    const int64_t wanted = words->ends[words->n_words] + n_bytes;
    if (wanted > words->room_bytes) {
        const int64_t room = larger(words->room_bytes, wanted);
        void *bytes = realloc(words->bytes, (size_t)room);
        if (!bytes) return 0;
        words->bytes = bytes;
        words->room_bytes = room;
    }
    return 2 * words->n_words < words->n_slots || make_slots(words, 2 * words->n_slots);
}

/* Return the number of a word, which is new if it was not met before; -1 without memory. */
static int32_t number_of(Words *words, const char *word, int64_t length, uint64_t hash) {
    int64_t at = (int64_t)(hash & (uint64_t)(words->n_slots - 1));
    for (int32_t w; (w = words->slots[at]) >= 0; at = (at + 1) & (words->n_slots - 1))
        if (words->hashes[w] == hash && words->ends[w + 1] - words->ends[w] == length &&
            !memcmp(words->bytes + words->ends[w], word, (size_t)length))
            return w;
    if (!room_for_word(words, length)) return -1;
    at = (int64_t)(hash & (uint64_t)(words->n_slots - 1));
    while (words->slots[at] >= 0) at = (at + 1) & (words->n_slots - 1);
    const int64_t w = words->n_words++, start = words->ends[w];
    memcpy(words->bytes + start, word, (size_t)length);
    words->hashes[w] = hash;
    words->ends[w + 1] = start + length;
    words->slots[at] = (int32_t)w;
    return (int32_t)w;
}

void rankmill_words_free(Words *words) {
    if (!words) return;
    free(words->bytes);
    free(words->ends);
    free(words->hashes);
    free(words->ids);
    free(words->id_ends);
    free(words->slots);
    free(words);
}

/* Return a table without words; NULL without memory. */
Words *rankmill_words_new(void) {
    Words *words = calloc(1, sizeof *words);
    if (!words || !make_slots(words, 1 << 12)) goto failed;
    words->ends = calloc(1, sizeof *words->ends);
    words->id_ends = calloc(1, sizeof *words->id_ends);
    if (!words->ends || !words->id_ends) goto failed;
    return words;
failed:
    rankmill_words_free(words);
    return NULL;
}

static int is_space(unsigned char byte) {
    return byte == ' ' || byte == '\t' || byte == '\n' || byte == '\r';
}

/* Write the words of texts and, of each text, the end of its words; return how many words they are,
 * -1 without memory. Text i is content[bounds[i] .. bounds[i + 1]]. */
int64_t rankmill_words_split(Words *words, const char *content, const int64_t *bounds,
                             int64_t n_texts, int32_t *word_of, int64_t *word_ends) {
    int64_t n = 0;
    for (int64_t text = 0; text < n_texts; text++) {
        int64_t at = bounds[text];
        const int64_t stop = bounds[text + 1];
        while (at < stop) {
            while (at < stop && is_space((unsigned char)content[at])) at++;
            const int64_t start = at;
            uint64_t hash = UINT64_C(0xCBF29CE484222325);
            for (; at < stop && !is_space((unsigned char)content[at]); at++)
                hash = (hash ^ (unsigned char)content[at]) * UINT64_C(0x100000001B3);
            if (at == start) break;
            const int32_t word = number_of(words, content + start, at - start, mixed(hash));
            if (word < 0) return -1;
            word_of[n++] = word;
        }
        word_ends[text] = n;
    }
    return n;
}

/* Return the words without ids, one after the other, and write where each ends in them. */
const char *rankmill_words_unknown(const Words *words, int64_t *ends) {
    const int64_t start = words->ends[words->n_defined];
    for (int64_t w = words->n_defined; w < words->n_words; w++)
        *ends++ = words->ends[w + 1] - start;
    return words->bytes + start;
}

/* Write how many words there are, how many of them have ids, and their bytes. */
void rankmill_words_size(const Words *words, int64_t *sizes) {
    sizes[0] = words->n_words;
    sizes[1] = words->n_defined;
    sizes[2] = words->ends[words->n_words];
}

/* Give the next words without ids theirs; return 0 without memory. */
int32_t rankmill_words_define(Words *words, const int32_t *ids, const int64_t *lengths,
                              int64_t n_words) {
    int64_t total = words->id_ends[words->n_defined];
    for (int64_t w = 0; w < n_words; w++) total += lengths[w];
    if (total > words->room_ids) {
        const int64_t room = larger(words->room_ids, total);
        void *moved = realloc(words->ids, (size_t)room * sizeof *ids);
        if (!moved) return 0;
        words->ids = moved;
        words->room_ids = room;
    }
    for (int64_t w = 0; w < n_words; w++) {
        const int64_t start = words->id_ends[words->n_defined];
        if (lengths[w]) memcpy(words->ids + start, ids, (size_t)lengths[w] * sizeof *ids);
        ids += lengths[w];
        words->id_ends[++words->n_defined] = start + lengths[w];
    }
    return 1;
}

/* Write how many ids each text has; return their sum. */
int64_t rankmill_words_count(const Words *words, const int32_t *word_of, const int64_t *word_ends,
                             int64_t n_texts, int64_t *lengths) {
    int64_t total = 0, n = 0;
    for (int64_t text = 0; text < n_texts; text++) {
        lengths[text] = 0;
        for (; n < word_ends[text]; n++)
            lengths[text] += words->id_ends[word_of[n] + 1] - words->id_ends[word_of[n]];
        total += lengths[text];
    }
    return total;
}

/* Write the ids of words, one after the other. */
void rankmill_words_write(const Words *words, const int32_t *word_of, int64_t n_words,
                          int32_t *out) {
    for (int64_t n = 0; n < n_words; n++) {
        const int64_t start = words->id_ends[word_of[n]], stop = words->id_ends[word_of[n] + 1];
        for (int64_t at = start; at < stop; at++) *out++ = words->ids[at];
    }
}

/* Write the number of each text among the distinct ones, in the order in which they come first, and
 * where each of those is first; return how many they are, -1 without memory. */
int64_t rankmill_distinct_texts(const char *content, const int64_t *bounds, int64_t n_texts,
                                int64_t *number_of_text, int64_t *first) {
    int64_t n_slots = 16, n = 0;
    while (n_slots < 2 * n_texts) n_slots *= 2;
    int64_t *slots = malloc((size_t)n_slots * sizeof *slots);
    uint64_t *hashes = malloc((size_t)(n_texts + 1) * sizeof *hashes);
    if (!slots || !hashes) n = -1;
    for (int64_t s = 0; n >= 0 && s < n_slots; s++) slots[s] = -1;
    for (int64_t text = 0; n >= 0 && text < n_texts; text++) {
        const char *bytes = content + bounds[text];
        const int64_t length = bounds[text + 1] - bounds[text];
        uint64_t hash = (uint64_t)length, eight;
        int64_t at = 0;
        for (; at + 8 <= length; at += 8) {
            memcpy(&eight, bytes + at, 8);
            hash = mixed(hash ^ eight);
        }
        for (; at < length; at++) hash = mixed(hash ^ (unsigned char)bytes[at]);
        int64_t slot = (int64_t)(hash & (uint64_t)(n_slots - 1));
        for (; slots[slot] >= 0; slot = (slot + 1) & (n_slots - 1)) {
            const int64_t other = first[slots[slot]];
            if (hashes[slots[slot]] == hash && bounds[other + 1] - bounds[other] == length &&
                !memcmp(content + bounds[other], bytes, (size_t)length))
                break;
        }
        if (slots[slot] < 0) {
            hashes[n] = hash;
            first[n] = text;
            slots[slot] = n++;
        }
        number_of_text[text] = slots[slot];
    }
    free(slots);
    free(hashes);
    return n;
}
