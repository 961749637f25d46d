"""The supervised line: MELD, encoders of text, picture and voice, two heads, training, export"""
