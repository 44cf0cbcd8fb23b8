-- Macros that all views share. `named`: the visible coupons that an order names, or the visible ids; null: none.
CREATE MACRO visible_ids(ids, named) AS [id FOR id IN ids IF coalesce(list_contains(named, id), false)];

CREATE MACRO names_others(ids, named) AS coalesce(len(ids) > len(visible_ids(ids, named)), false);

CREATE MACRO without_coupons(discounts) AS [d FOR d IN discounts IF d.kind IS DISTINCT FROM 'coupon'];

CREATE MACRO without_discounts(lines) AS
    [{sku: l.sku, category: l.category, quantity: l.quantity, net_minor: l.net_minor, discount_minor: NULL::BIGINT,
      cost_minor: l.cost_minor} FOR l IN lines];

-- Of a profile, only the segment is no personal data.
CREATE MACRO segment_only(attributes) AS
    CASE WHEN json_type(attributes, '$.segment') = 'VARCHAR'
         THEN json_object('segment', json_extract_string(attributes, '$.segment'))::VARCHAR END;
