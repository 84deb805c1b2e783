"""The words that sample sales are made of: what products are called, where customers live, which codes are no products.

What goes here: fixed lists. What does not: randomness, shapes of demand, dirt.
"""

from __future__ import annotations

MATERIALS = ("WOODEN", "METAL", "GLASS", "CERAMIC", "PAPER", "COTTON", "ENAMEL", "WICKER", "FELT", "ZINC")
COLOURS = ("RED", "WHITE", "PINK", "BLUE", "IVORY", "GREEN", "BLACK", "MINT")
THINGS = (
    "LANTERN", "CAKE STAND", "LUNCH BAG", "T-LIGHT HOLDER", "BUNTING", "TEACUP", "DOORMAT", "PHOTO FRAME", "STORAGE JAR",
    "ALARM CLOCK", "HAND WARMER", "NOTEBOOK", "MUG", "CUSHION", "GIFT BOX", "WALL HOOK", "CANDLE", "TRAY", "BIRD FEEDER", "RIBBONS",
)  # fmt: skip

# Codes that the sales contract keeps with is_product = false; beside them, those that begin with GIFT_.
NOT_PRODUCTS = ("POST", "DOT", "M", "D", "C2", "S", "B", "PADS", "CRUK", "BANK CHARGES", "AMAZONFEE")
GIFT_VOUCHERS = ("gift_0001_10", "gift_0001_20", "gift_0001_50")
NOT_PRODUCT_DESCRIPTIONS = {
    "POST": "POSTAGE", "DOT": "DOTCOM POSTAGE", "M": "Manual", "D": "Discount", "C2": "CARRIAGE", "S": "SAMPLES",
    "B": "Adjust bad debt", "PADS": "PADS TO MATCH ALL CUSHIONS", "CRUK": "CRUK Commission", "BANK CHARGES": "Bank Charges",
    "AMAZONFEE": "AMAZON FEE", "gift_0001_10": "Dotcomgiftshop Gift Voucher £10.00",
    "gift_0001_20": "Dotcomgiftshop Gift Voucher £20.00", "gift_0001_50": "Dotcomgiftshop Gift Voucher £50.00",
}  # fmt: skip

COUNTRIES = (
    "United Kingdom",
    "Germany",
    "France",
    "EIRE",
    "Spain",
    "Netherlands",
    "Belgium",
    "Switzerland",
    "Portugal",
    "Channel Islands",
)
COUNTRY_SHARES = (0.88, 0.025, 0.025, 0.02, 0.012, 0.01, 0.01, 0.008, 0.006, 0.004)

SALES_COLUMNS = (
    "InvoiceNo",
    "StockCode",
    "Description",
    "Quantity",
    "InvoiceDate",
    "UnitPrice",
    "CustomerID",
    "Country",
)
