-- Some orders (`affected`) are awaited no more.
DELETE FROM awaited w USING affected a WHERE w.order_hash = a.order_hash AND w.order_id = a.order_id
