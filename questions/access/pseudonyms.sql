-- Macros for questions that show or take personal data. A pseudonym has 24 characters; 88 bits of it are of a hash that
-- only the holder of the key can compute. `pseudonym_hash` computes `stable_hash` (projections/live/signature.py) of it:
-- three words of eight bytes, mixed as splitmix64 does.
CREATE MACRO pseudonym(user_id) AS 'p-' || left(sha256(getvariable('access_key') || user_id), 22);

CREATE MACRO low_bits(x) AS (x & 18446744073709551615::UHUGEINT)::UBIGINT;

-- A list with one element computes `x` once: DuckDB puts the text of an argument wherever the macro names it.
CREATE MACRO shifted(x, bits) AS ([xor(y, y >> bits) FOR y IN [x]])[1];

CREATE MACRO multiplied(x, factor) AS low_bits(x::UHUGEINT * factor::UHUGEINT);

CREATE MACRO mixed(x) AS
    shifted(multiplied(shifted(multiplied(shifted(x, 30), 13787848793156543929), 27), 10723151780598845931), 31);

CREATE MACRO word(text, number) AS ('0x' || hex(reverse(text[number * 8 - 7 : number * 8])))::UBIGINT;

CREATE MACRO absorbed(state, next) AS
    mixed(low_bits(multiplied(xor(state, next), 11400714819323198485)::UHUGEINT + 11400714819323198485::UHUGEINT));

CREATE MACRO hash_of(text) AS
    absorbed(absorbed(absorbed(mixed(multiplied(24, 11400714819323198485)), word(text, 1)), word(text, 2)), word(text, 3));

CREATE MACRO pseudonym_hash(key_hash, user_id) AS
    ([CASE WHEN h > 9223372036854775807::UBIGINT THEN (h::HUGEINT - 18446744073709551616::HUGEINT)::BIGINT ELSE h::BIGINT END
      FOR h IN [hash_of(pseudonym(user_id))]])[1];
