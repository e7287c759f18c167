"""The mirror receiver: requests received and answered on one native thread, and cleaned in batches."""
