"""A shop that leaks: one of its routes keeps something of every request.

FLASK_PROFILE=memory gunicorn --workers 2 --threads 4 leaky:app
"""

from flask import Flask, jsonify, request

from profilers import Profilers

app = Flask(__name__)
Profilers(app)

PRICES = {f"article {number}": number * 1.5 for number in range(200)}
searches = []


@app.get("/articles")
def articles():
    return jsonify(PRICES)


@app.get("/articles/<name>")
def article(name):
    return jsonify(PRICES.get(name))


@app.get("/search")
def search():
    words = request.args.get("q", "").split()
    found = {name: price for name, price in PRICES.items() if all(word in name for word in words)}
    searches.append((words, found))  # "for the statistics, some day"
    return jsonify(found)
