from coupon_ledger.cli.main import main

main()
