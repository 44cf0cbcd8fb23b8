-- Which coupons are in use on the orders in `affected`? Grain: one coupon.
SELECT u.* FROM coupons_in_use u SEMI JOIN affected a ON u.order_hash = a.order_hash AND u.order_id = a.order_id
